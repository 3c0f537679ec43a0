use super::*;
use clap::{CommandFactory, error::ErrorKind};
use ringmaster_common::error::{Code, Refusal};

fn parse(line: &str) -> Result<Command, clap::Error> {
    let words = std::iter::once("ringmaster").chain(line.split_whitespace());
    CommandLine::try_parse_from(words).map(|line| line.command)
}

#[test]
fn the_command_line_is_well_formed() {
    CommandLine::command().debug_assert();
}

#[test]
fn every_command_and_option_has_help() {
    fn check(command: &clap::Command) {
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{} has no help", sub.get_name());
            for option in sub.get_opts() {
                let plain = ["id", "name", "operation"].contains(&option.get_id().as_str());
                assert!(plain || option.get_help().is_some(), "{} of {} has no help", option, sub.get_name());
            }
            check(sub);
        }
    }
    check(&CommandLine::command());
}

#[test]
fn options_may_stand_before_and_after_the_action() {
    for line in [
        "apply transfer_leadership --to 2 --yes --url http://a:1 --json --keep-within 60s",
        "apply --yes --url http://a:1 --json --keep-within 60s transfer_leadership --to 2",
        "apply 12 --yes",
        "apply --yes 12",
        "plan --json transfer_leadership --to 2",
        "plan add_node --id 4 --name x --api-addr 127.0.0.1:1 --peer-addr 127.0.0.1:2 --json",
        "undo 17 --yes --url http://a:1 --url http://b:1",
        "abort 3",
        "keep 3 --json",
        "status --watch --json",
        "events --after 12 --limit 5",
        "settings put a.b -1",
        "settings list --watch",
        "lock jobs/nightly -- true",
        "lock x --ttl 10s --wait 0s --owner me --shared --url http://a:1 -- sh -c true --flag",
        "lock --limit 3 x -- true",
        "locks",
        "locks --stale",
        "locks show x --stale",
        "upstreams web --watch --stale",
        "settings get a.b --stale",
        "config export - --stale --json",
        "locks jobs/ --contended --watch --json",
        "locks show jobs/nightly --json",
        "plan release_lock --name jobs/nightly --token 7",
        "demo --nodes 5 --base-port 9000 --no-open --no-load",
        "serve --data-dir d --bootstrap --heartbeat-ms 50",
        "serve --data-dir d --join http://a:1 --join http://b:1,http://c:1",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn invalid_command_lines_are_usage_errors() {
    for line in [
        "statsu",
        "apply nonsense",
        "apply transfer_leadership",
        "apply 12 --keep-within 60",
        "plan",
        "plan 12",
        "abort",
        "status --url 127.0.0.1:7701",
        "status --url https://a",
        "events --limit 0",
        "settings put a.b {",
        "lock x",
        "lock x true",
        "lock x --",
        "lock -- true",
        "lock x --ttl 10 -- true",
        "lock x --shared --limit 3 -- true",
        "lock x --wait 2h -- true",
        "lock x --ttl 10ms -- true",
        "register web --addr 127.0.0.1:1 --ttl 2d -- true",
        "register web --addr 127.0.0.1:1 --ttl 100ms -- true",
        "locks jobs/ show x",
        "locks show",
        "demo --nodes 0",
        "demo --nodes 8",
        "demo --base-port 65535",
        "serve --log-format xml",
        "serve --api-addr localhost",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}: {error}");
    }
    assert_eq!(parse("--help").unwrap_err().kind(), ErrorKind::DisplayHelp);
    let error = parse("apply nonsense").unwrap_err().to_string();
    for action in ringmaster_common::action::Action::TYPES {
        assert!(error.contains(action), "{error}");
    }
}

#[test]
fn help_of_help_is_help() {
    let shortened = |line: &str| {
        let words = line.split_whitespace().map(OsString::from).collect();
        let words: Vec<_> =
            without_help_of_help(words).into_iter().map(|word| word.into_string().unwrap()).collect();
        words.join(" ")
    };
    for (line, expected) in [
        ("ringmaster help --help", "ringmaster help"),
        ("ringmaster help -h", "ringmaster help"),
        ("ringmaster help lock --help", "ringmaster help lock"),
        ("ringmaster config help --help", "ringmaster config help"),
        ("ringmaster config help import --help", "ringmaster config help import"),
        ("ringmaster --help", "ringmaster --help"),
        ("ringmaster status --help", "ringmaster status --help"),
        ("ringmaster lock help --help", "ringmaster lock help --help"),
        ("ringmaster lock x -- help --help", "ringmaster lock x -- help --help"),
    ] {
        assert_eq!(shortened(line), expected);
    }
}

/// `lock` exits with its command's code, so its usage errors have a code of their own.
#[test]
fn a_usage_error_of_lock_has_its_own_code() {
    let code = |line: &str| {
        let subcommand = line.split_whitespace().next().map(OsString::from);
        usage_code(&parse(line).unwrap_err(), subcommand)
    };
    assert_eq!(code("lock x"), 125);
    assert_eq!(code("lock --help"), 0);
    assert_eq!(code("locks show"), 2);
    assert_eq!(code("statsu"), 2);
}

#[test]
fn apply_takes_a_plan_or_an_action() {
    for line in ["apply --yes", "apply 12 undo --operation 3 --yes"] {
        let Command::Apply(arguments) = parse(line).unwrap() else { panic!("an apply") };
        let failure = block_on(changes::apply(arguments, &Out::stdout())).unwrap_err();
        assert_eq!(failure.exit_code(), 2, "{line}: {failure:?}");
    }
}

#[test]
fn an_impossible_confirmation_is_a_usage_error() {
    for line in ["apply 12 --json", "undo 3 --json", "apply transfer_leadership --to 2 --json"] {
        let failure = match parse(line).unwrap() {
            Command::Apply(arguments) => block_on(changes::apply(arguments, &Out::stdout())),
            Command::Undo(arguments) => block_on(changes::undo(arguments, &Out::stdout())),
            _ => panic!("an apply or undo"),
        }
        .unwrap_err();
        assert_eq!(failure.exit_code(), 2, "{line}");
        assert!(failure.message().unwrap().contains("--yes"), "{failure:?}");
    }
}

#[test]
fn exit_codes_distinguish_refused_from_unreachable() {
    let refused = ClientError::Problem(Box::new(Refusal::new(Code::PlanStale, "x").into()));
    assert_eq!(CliError::from(refused).exit_code(), 1);
    assert_eq!(CliError::from(ClientError::Unreachable(Vec::new())).exit_code(), 3);
    let closed = |kind: io::ErrorKind| CliError::from(Closed(kind.into()));
    assert_eq!(closed(io::ErrorKind::BrokenPipe).exit_code(), 0);
    assert_eq!(closed(io::ErrorKind::StorageFull).exit_code(), 1);
    assert_eq!(CliError::Usage(String::new()).exit_code(), 2);
}
