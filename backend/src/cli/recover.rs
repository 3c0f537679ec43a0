//! `ringmaster recover`: the way back from a lost quorum, on the data directory of a node that survived.
//!
//! The order of the steps: read all, refuse what can be refused, ask the operator, keep a copy of the directory, write the
//! new data beside the old, and switch with one rename. So a recovery that is cut short at any moment leaves either the
//! old data or the new, and can be started again.
//!
//! Deliberately absent: a comparison with nodes on other machines. `--inspect` prints what each of them has, and the
//! operator chooses the one with the most.

mod neighbours;
mod report;

use self::report::Report;
use super::CliError;
use crate::out::Out;
use clap::Args;
use ringmaster_cluster::{State, recovery::RECOVERY_GAP};
use ringmaster_cluster_group::recovery;
use ringmaster_common::id::NodeId;
use ringmaster_replication::recovery::Remains;
use ringmaster_storage::{
    data_dir::{DataDir, DataDirError, Identity},
    journal::JournalError,
    replacement,
};
use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

const EXAMPLES: &str = "\
Use it if a majority of the voters is gone for good, and only then: what those nodes had acknowledged
and this one had not received is lost. docs/recovery.md is the guide.

Examples:
  ringmaster recover --inspect --data-dir d1 --data-dir d3   which of these nodes has the most
  ringmaster recover --data-dir d1                           asks for the cluster's name, and recovers
  ringmaster recover --data-dir d1 --confirm CLUSTER_ID      the same for scripts";

/// The room that the new data takes at least, beside a copy of the old data.
const SPARE_BYTES: u64 = 1 << 20;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The data directory of a stopped node; with --inspect it may be repeated
    #[arg(long, value_name = "DIR", required = true)]
    data_dir: Vec<PathBuf>,
    /// Print what the node has, and change nothing
    #[arg(long)]
    inspect: bool,
    /// With --inspect: print JSON, one document per directory and line
    #[arg(long, requires = "inspect")]
    json: bool,
    /// Where to keep the copy of the data directory [default: DIR.before-recovery]
    #[arg(long, value_name = "DIR", conflicts_with = "inspect")]
    save_to: Option<PathBuf>,
    /// The cluster's id: recover without asking
    #[arg(long, value_name = "CLUSTER_ID", conflicts_with = "inspect")]
    confirm: Option<String>,
}

/// A stopped node, with its directory locked.
struct Survivor {
    dir: DataDir,
    identity: Identity,
    remains: Remains<State>,
}

pub async fn run(arguments: Arguments, out: &Out) -> Result<(), CliError> {
    let survivors =
        arguments.data_dir.iter().map(|path| Survivor::open(path)).collect::<Result<Vec<_>, _>>()?;
    if arguments.inspect {
        let reports: Vec<_> = survivors.iter().map(Survivor::report).collect();
        return Ok(out.text(report::show(&reports, arguments.json, out.paint()))?);
    }
    let [survivor] = <[Survivor; 1]>::try_from(survivors).map_err(|_| {
        CliError::Usage(
            "a recovery takes one --data-dir: that of the node that has the most; compare them with --inspect".to_owned(),
        )
    })?;
    recover(survivor, &arguments, out).await
}

async fn recover(survivor: Survivor, arguments: &Arguments, out: &Out) -> Result<(), CliError> {
    let me = survivor.identity.node_id;
    let Some(node) = survivor.remains.state.membership.get(me).cloned() else {
        return Err(refused(
            "not_a_member",
            format!("node {me} is no member of the cluster in its own data"),
        ));
    };
    if let Some(confirmed) = arguments.confirm.as_deref().filter(|id| *id != survivor.identity.cluster_id) {
        return Err(refused(
            "wrong_confirmation",
            format!(
                "{confirmed:?} is not the id of this cluster, which is {}; nothing has changed",
                survivor.identity.cluster_id
            ),
        ));
    }
    let warnings = neighbours::check(&survivor).await?;
    let save_to = survivor.save_to(arguments.save_to.as_deref())?;
    let mut text = survivor.report().text();
    text.push_str(&survivor.consequences(&save_to));
    for warning in warnings {
        text.push_str(&format!("Warning: {warning}\n"));
    }
    out.text(text)?;
    if arguments.confirm.is_none() {
        survivor.confirm()?;
    }

    replacement::copy(&survivor.dir, &save_to).map_err(|error| no_copy(&save_to, &error))?;
    out.line(format!("Saved the data as it was: {}", save_to.display()))?;
    let Survivor { dir, identity, remains } = survivor;
    let failed = |error: io::Error| {
        let path = dir.path().display();
        refused(
            "write_failed",
            format!("{path}: {error}; the node has its old data, and the copy is at {}", save_to.display()),
        )
    };
    let state = recovery::recover(&dir, &identity, remains, &node.peer_addr).map_err(failed)?;
    out.text(format!(
        "Recovered: cluster {} ({}), incarnation {}, revision {}, with node {me} as its only member.\n\
         Start it as before: ringmaster serve --data-dir {}\n\
         Then add nodes with empty data directories: ringmaster serve --data-dir NEW --join http://{}\n",
        state.name,
        state.id,
        state.incarnation,
        state.revision,
        dir.path().display(),
        node.api_addr,
    ))?;
    Ok(())
}

impl Survivor {
    fn open(path: &Path) -> Result<Survivor, CliError> {
        let (dir, identity) =
            DataDir::open_existing(path).map_err(|error| refused(code_of(&error), error))?;
        let remains = recovery::read(&dir).map_err(|error| {
            let code = match error.get_ref().and_then(|inner| inner.downcast_ref::<JournalError>()) {
                Some(JournalError::Format { .. }) => "newer_format",
                Some(JournalError::Io { .. }) => "unreadable",
                Some(_) => "damaged",
                None if error.kind() == io::ErrorKind::InvalidData => "damaged",
                None => "unreadable",
            };
            refused(code, error)
        })?;
        if remains.state.id != identity.cluster_id {
            let (path, cluster) = (path.display(), &identity.cluster_id);
            let text = match remains.state.id.as_str() {
                "" => format!(
                    "{path} has no state of cluster {cluster} yet: the node had just begun to join it"
                ),
                other => {
                    format!("{path} holds the data of cluster {other}, and its identity.json says {cluster}")
                }
            };
            return Err(refused("no_state", text));
        }
        Ok(Survivor { dir, identity, remains })
    }

    fn report(&self) -> Report {
        Report::new(self.dir.path(), &self.identity, &self.remains)
    }

    /// The other members, in words.
    fn others(&self) -> String {
        let others = self.remains.state.members();
        let others: Vec<_> = others
            .into_iter()
            .filter(|id| *id != self.identity.node_id)
            .map(|id| NodeId::to_string(&id))
            .collect();
        match others.as_slice() {
            [] => "no other node".to_owned(),
            [one] => format!("node {one}"),
            some => format!("nodes {}", some.join(", ")),
        }
    }

    fn consequences(&self, save_to: &Path) -> String {
        let others = self.others();
        format!(
            "\n\
             After the recovery\n\
             - this node is the only member, and the cluster is in its next incarnation;\n\
             - {others}: refused for ever under the same id and data, to be replaced by new nodes with empty directories;\n\
             - revisions, fencing tokens and epochs continue {RECOVERY_GAP} higher, above those that are lost;\n\
             - lost is what the other nodes had acknowledged after entry {} of term {}: settings, routes, grants of locks;\n\
             - unfinished operations have failed.\n\
             A copy of the data directory is kept at {}.\n",
            self.remains.last.index,
            self.remains.last.term,
            save_to.display(),
        )
    }

    /// Where the copy goes, if there is room for it and the new data.
    fn save_to(&self, wanted: Option<&Path>) -> Result<PathBuf, CliError> {
        let path = self.dir.path();
        let to = match wanted {
            Some(path) => path.to_owned(),
            None => free_name(path)?,
        };
        if to.exists() {
            return Err(refused(
                "copy_exists",
                format!("{} exists already: name another --save-to", to.display()),
            ));
        }
        let parent = match to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let sizes = replacement::bytes(path)
            .and_then(|data| Ok((data, replacement::free_bytes(parent)?, replacement::free_bytes(path)?)));
        let (data, for_copy, for_new) = sizes.map_err(|error| no_copy(&to, &error))?;
        match shortage(data, for_copy, for_new) {
            None => Ok(to),
            Some(why) => {
                let (path, parent) = (path.display(), parent.display());
                Err(refused(
                    "no_space",
                    format!(
                        "{why} for {path} and its copy in {parent}: make room, or keep the copy on another disk with \
                         --save-to. Nothing has changed"
                    ),
                ))
            }
        }
    }

    /// Asks for the name or the id of the cluster.
    fn confirm(&self) -> Result<(), CliError> {
        if !io::stdin().is_terminal() {
            return Err(CliError::Usage(format!(
                "cannot ask for confirmation: standard input is not a terminal; pass --confirm {}",
                self.identity.cluster_id
            )));
        }
        let failed = |error: io::Error| CliError::Failed(format!("cannot ask for confirmation: {error}"));
        let (name, mut answer, mut stderr) = (&self.remains.state.name, String::new(), io::stderr());
        let question = format!("Type the cluster's name ({name}) to recover it: ");
        stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)?;
        io::stdin().read_line(&mut answer).map_err(failed)?;
        let answer = answer.trim();
        if answer == name || answer == self.identity.cluster_id {
            return Ok(());
        }
        Err(refused("wrong_confirmation", format!("{answer:?} is not {name:?}; nothing has changed")))
    }
}

/// The first name beside the directory that is free.
fn free_name(path: &Path) -> Result<PathBuf, CliError> {
    let path = path.canonicalize().map_err(|error| no_copy(path, &error))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut names = (1u32..).map(|nth| match nth {
        1 => path.with_file_name(format!("{name}.before-recovery")),
        _ => path.with_file_name(format!("{name}.before-recovery-{nth}")),
    });
    Ok(names.find(|name| !name.exists()).unwrap_or(path))
}

/// What is missing for a copy of `data` bytes and for the new data, if they may be on one disk. The new data is a snapshot:
/// no larger than the old data, which has one or all entries since the beginning.
fn shortage(data: u64, free_for_copy: u64, free_for_new: u64) -> Option<String> {
    let (each, both) = (data.saturating_add(SPARE_BYTES), data.saturating_mul(2).saturating_add(SPARE_BYTES));
    let (free, needed) = if free_for_copy == free_for_new {
        (free_for_copy, both)
    } else {
        (free_for_copy.min(free_for_new), each)
    };
    (free < needed).then(|| format!("{free} bytes are free, and up to {needed} are needed"))
}

fn code_of(error: &DataDirError) -> &'static str {
    match error {
        DataDirError::InUse { .. } => "in_use",
        DataDirError::NoNode { .. } => "not_a_data_directory",
        DataDirError::Format { .. } => "newer_format",
        DataDirError::BadIdentity { .. } | DataDirError::NoIdentity { .. } => "damaged",
        DataDirError::Io { .. } | DataDirError::Taken { .. } => "unreadable",
    }
}

fn no_copy(to: &Path, error: &io::Error) -> CliError {
    let code = if error.kind() == io::ErrorKind::StorageFull { "no_space" } else { "copy_failed" };
    refused(
        code,
        format!(
            "the copy of the data directory cannot be kept at {}: {error}; name another place with --save-to. Nothing has \
             changed",
            to.display()
        ),
    )
}

/// A refusal with a stable code, as the API has them.
fn refused(code: &str, why: impl Display) -> CliError {
    CliError::Failed(format!("{code}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_needed_for_the_copy_and_for_the_new_data() {
        assert_eq!(shortage(10 << 20, 21 << 20, 21 << 20), None);
        let one_disk = shortage(10 << 20, (21 << 20) - 1, (21 << 20) - 1).expect("it is too little");
        assert_eq!(one_disk, "22020095 bytes are free, and up to 22020096 are needed");
        assert_eq!(shortage(10 << 20, 12 << 20, 11 << 20), None, "on two disks, each needs it once");
        assert!(shortage(10 << 20, 12 << 20, 10 << 20).is_some());
        assert!(shortage(u64::MAX, 1, 1).is_some());
    }
}
