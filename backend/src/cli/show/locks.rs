//! Locks: the list, and one in detail.

use super::{line, time};
use crate::{
    cli::{
        duration::show_ms,
        table::{Cell, Column, Table},
    },
    out::{Paint, Tone},
};
use ringmaster_common::lock::{Lock, LockDetail, LockFact, LockMode};
use std::collections::BTreeMap;

pub fn locks(locks: &[Lock], paint: Paint) -> String {
    let mut table = Table::new(&[
        Column::Left("NAME"),
        Column::Left("MODE"),
        Column::Left("HOLDER"),
        Column::Right("TOKEN"),
        Column::Right("REMAINING"),
        Column::Right("WAITERS"),
        Column::Left("REMARK"),
    ]);
    for lock in locks {
        let first = lock.holders.first();
        let others = lock.held_by.saturating_sub(1);
        let more = if others > 0 { format!(" and {others} more") } else { String::new() };
        table.row([
            lock.name.as_str().into(),
            mode(lock).into(),
            Cell::maybe(first.map(|holder| format!("{}{more}", holder.owner))),
            Cell::maybe(first.map(|holder| holder.token)),
            Cell::maybe(first.map(|holder| show_ms(holder.expires_in_ms))),
            lock.waited_by.to_string().into(),
            Cell::toned(remark(lock), Tone::Warn),
        ]);
    }
    if locks.is_empty() { "No matching lock is in use.\n".to_owned() } else { table.render(paint) }
}

pub fn lock(detail: &LockDetail, paint: Paint) -> String {
    let lock = &detail.lock;
    let heading = |text: &str| paint.apply(Tone::Strong, text);
    let mut text = String::new();
    line(&mut text, format!("{}   {}", heading("Lock"), lock.name));
    line(&mut text, format!("{}   {}", heading("Mode"), mode(lock)));
    line(&mut text, format!("{}  no token below {} is valid", heading("Fence"), lock.fence));
    let remark = remark(lock);
    if !remark.is_empty() {
        line(&mut text, format!("{}   {}", heading("Note"), paint.apply(Tone::Warn, &remark)));
    }

    line(&mut text, heading("\nHeld by"));
    let mut table = Table::new(&[
        Column::Right("TOKEN"),
        Column::Left("OWNER"),
        Column::Right("REMAINING"),
        Column::Right("TTL"),
        Column::Left("SINCE"),
        Column::Left("META"),
    ]);
    for holder in &lock.holders {
        table.row([
            holder.token.to_string().into(),
            holder.owner.as_str().into(),
            show_ms(holder.expires_in_ms).into(),
            show_ms(holder.ttl_ms).into(),
            time(holder.since).into(),
            Cell::toned(meta(&holder.meta), Tone::Faint),
        ]);
    }
    text += &or_none(&lock.holders, &table, paint);

    line(&mut text, heading("\nNext in the queue"));
    let mut table = Table::new(&[
        Column::Right("NO"),
        Column::Left("OWNER"),
        Column::Left("MODE"),
        Column::Right("GIVES UP IN"),
        Column::Left("THROUGH"),
        Column::Left("SINCE"),
        Column::Left("META"),
    ]);
    for (number, waiter) in (1..).zip(&lock.waiters) {
        let node = waiter.node.map(|node| format!("node {node}"));
        table.row([
            u64::to_string(&number).into(),
            waiter.owner.as_str().into(),
            waiter.mode.as_str().into(),
            show_ms(waiter.gives_up_in_ms).into(),
            node.map_or_else(|| Cell::toned("its node is down", Tone::Warn), Cell::from),
            time(waiter.since).into(),
            Cell::toned(meta(&waiter.meta), Tone::Faint),
        ]);
    }
    text += &or_none(&lock.waiters, &table, paint);

    if !detail.waits.is_empty() {
        line(&mut text, heading("\nWait-for graph"));
        for wait in &detail.waits {
            let tone = if wait.deadlocked { Tone::Bad } else { Tone::Plain };
            let deadlock = if wait.deadlocked { ", deadlocked" } else { "" };
            let sentence =
                format!("{} waits for {}, which holds {}{deadlock}", wait.waiter, wait.holder, wait.lock);
            line(&mut text, format!("  {}", paint.apply(tone, &sentence)));
        }
    }

    line(&mut text, heading("\nHistory"));
    let mut table = Table::new(&[
        Column::Right("REVISION"),
        Column::Left("TIME"),
        Column::Left("EVENT"),
        Column::Left("OWNER"),
        Column::Right("TOKEN"),
    ]);
    for record in &detail.history {
        let tone = match record.what {
            LockFact::Expired | LockFact::Forced => Tone::Warn,
            _ => Tone::Plain,
        };
        table.row([
            record.revision.to_string().into(),
            Cell::toned(time(record.at), Tone::Faint),
            Cell::toned(record.what.as_str().replace('_', " "), tone),
            record.owner.as_str().into(),
            Cell::maybe(record.token),
        ]);
    }
    text + &table.render(paint)
}

fn or_none<T>(rows: &[T], table: &Table, paint: Paint) -> String {
    if rows.is_empty() { "none\n".to_owned() } else { table.render(paint) }
}

fn mode(lock: &Lock) -> String {
    let held = lock.holders.first().map(|holder| holder.mode);
    match (lock.limit, held.or(lock.waiters.first().map(|waiter| waiter.mode))) {
        (Some(limit), _) => format!("shared, {} of {limit}", lock.held_by),
        (None, Some(LockMode::Shared)) => "shared".to_owned(),
        (None, Some(LockMode::Exclusive)) => "exclusive".to_owned(),
        (None, None) => "free".to_owned(),
    }
}

fn remark(lock: &Lock) -> String {
    let delay = lock.delayed_for_ms.map(|ms| format!("lock delay: not granted for {}", show_ms(ms)));
    let deadlock = lock.deadlocked.then(|| "deadlocked".to_owned());
    delay.into_iter().chain(deadlock).collect::<Vec<_>>().join("; ")
}

fn meta(meta: &BTreeMap<String, String>) -> String {
    meta.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(", ")
}
