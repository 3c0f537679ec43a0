//! The help of every command and of its subcommands, as a shell without a terminal sees it.

use ringmaster_tests::process::binary;
use std::process::Command;

pub fn help() -> String {
    let mut text = String::new();
    append(&[], &mut text);
    text
}

fn append(words: &[&str], text: &mut String) {
    let mut command = Command::new(binary());
    command.args(words).arg("--help").env_clear();
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{words:?}: {output:?}");
    let help = String::from_utf8(output.stdout).expect("a text");
    text.push_str(&format!("$ ringmaster {}\n", [words, &["--help"]].concat().join(" ")));
    for line in help.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push('\n');
    for subcommand in subcommands(&help) {
        append(&[words, &[subcommand]].concat(), text);
    }
}

/// Those that the help lists, but for `help` itself.
fn subcommands(help: &str) -> impl Iterator<Item = &str> {
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help")
}
