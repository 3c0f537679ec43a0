//! Actions on the command line. [`Action::cli_arguments`] is the inverse of this parser.

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use ringmaster_common::{
    action::{Action, NewNode},
    id::{GroupId, NodeId, OperationId, Token},
    traffic::upstream::EndpointState,
};

#[derive(Clone, Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum ActionArguments {
    /// Transfer the leadership of a Raft group to another voter
    #[command(after_help = "Example: ringmaster apply transfer_leadership --to 2")]
    TransferLeadership {
        /// The Raft group; 0 is the cluster group
        #[arg(long, default_value_t = GroupId::CLUSTER)]
        group: GroupId,
        /// The new leader
        #[arg(long, value_name = "NODE")]
        to: NodeId,
    },
    /// Add a running process as a learner; it is promoted to voter if there are fewer than three
    AddNode(AddNode),
    /// Change the set of voters; former voters become learners
    #[command(after_help = "Example: ringmaster apply change_voters --voters 1,2,3,4,5")]
    ChangeVoters {
        /// The voters after the change, separated by commas
        #[arg(long, value_name = "NODE,…", value_delimiter = ',', required = true)]
        voters: Vec<NodeId>,
    },
    /// Remove a node from the cluster permanently
    #[command(after_help = "Example: ringmaster apply remove_node --node 3")]
    RemoveNode {
        /// The node to remove
        #[arg(long, value_name = "NODE")]
        node: NodeId,
    },
    /// Move all work away from a node, so that it can be stopped
    #[command(after_help = "Example: ringmaster apply drain_node --node 3")]
    DrainNode {
        /// The node to drain
        #[arg(long, value_name = "NODE")]
        node: NodeId,
    },
    /// End the drain of a node
    ActivateNode {
        /// The node to activate
        #[arg(long, value_name = "NODE")]
        node: NodeId,
    },
    /// Release a lock on behalf of its holder
    #[command(after_help = "Example: ringmaster apply release_lock --name jobs/nightly")]
    ReleaseLock {
        /// The name of the lock
        #[arg(long, allow_hyphen_values = true)]
        name: String,
        /// Release it only if its token is this one
        #[arg(long)]
        token: Option<Token>,
    },
    /// Set an endpoint's state: ready, drain or maintenance
    #[command(
        after_help = "Example: ringmaster apply set_endpoint_state --upstream web --endpoint e1 --state drain"
    )]
    SetEndpointState {
        /// The upstream of the endpoint
        #[arg(long, value_name = "NAME")]
        upstream: String,
        /// The id of the endpoint
        #[arg(long, value_name = "ID")]
        endpoint: String,
        /// ready receives requests, drain no new ones, maintenance none and no checks
        #[arg(long, value_parser = PossibleValuesParser::new(EndpointState::ALL.iter().map(|state| state.as_str())).try_map(|word| endpoint_state(&word)))]
        state: EndpointState,
    },
    /// Fail over an active-standby upstream to another endpoint
    #[command(after_help = "Example: ringmaster apply fail_over_upstream --upstream db --to db-2")]
    FailOverUpstream {
        /// The upstream
        #[arg(long)]
        upstream: String,
        /// The new primary [default: the first ready and healthy standby]
        #[arg(long, value_name = "ENDPOINT")]
        to: Option<String>,
    },
    /// Undo a finished operation
    #[command(after_help = "Example: ringmaster plan undo --operation 17")]
    Undo {
        #[arg(long, value_name = "OPERATION_ID")]
        operation: OperationId,
    },
}

#[derive(Args, Clone, Debug)]
pub struct AddNode {
    #[arg(long, value_name = "N")]
    id: NodeId,
    /// The display name of the node
    #[arg(long)]
    name: String,
    /// The failure domain of the node
    #[arg(long, default_value = "default")]
    zone: String,
    /// The node's relative share of the ring
    #[arg(long, default_value_t = 1)]
    weight: u32,
    /// The node's address for HTTP requests
    #[arg(long, value_name = "IP:PORT")]
    api_addr: String,
    /// The node's address for connections from other nodes
    #[arg(long, value_name = "IP:PORT")]
    peer_addr: String,
    /// The URL of the node's dashboard as browsers reach it [default: http://API_ADDR]
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
}

fn endpoint_state(word: &str) -> Result<EndpointState, String> {
    let known = EndpointState::ALL.iter().find(|state| state.as_str() == word);
    known.copied().ok_or_else(|| format!("unknown state {word}"))
}

impl From<ActionArguments> for Action {
    fn from(arguments: ActionArguments) -> Action {
        match arguments {
            ActionArguments::TransferLeadership { group, to } => Action::TransferLeadership { group, to },
            ActionArguments::AddNode(AddNode { id, name, zone, weight, api_addr, peer_addr, public_url }) => {
                let public_url = public_url.unwrap_or_else(|| format!("http://{api_addr}"));
                Action::AddNode { node: NewNode { id, name, zone, weight, api_addr, peer_addr, public_url } }
            }
            ActionArguments::ChangeVoters { voters } => {
                Action::ChangeVoters { voters: voters.into_iter().collect() }
            }
            ActionArguments::RemoveNode { node } => Action::RemoveNode { node },
            ActionArguments::DrainNode { node } => Action::DrainNode { node },
            ActionArguments::ActivateNode { node } => Action::ActivateNode { node },
            ActionArguments::ReleaseLock { name, token } => Action::ReleaseLock { name, token },
            ActionArguments::SetEndpointState { upstream, endpoint, state } => {
                Action::SetEndpointState { upstream, endpoint, state }
            }
            ActionArguments::FailOverUpstream { upstream, to } => Action::FailOverUpstream { upstream, to },
            ActionArguments::Undo { operation } => Action::Undo { operation },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::collections::BTreeSet;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        action: ActionArguments,
    }

    fn parse(line: &str) -> Action {
        Line::try_parse_from(std::iter::once("action".to_owned()).chain(shlex::split(line).unwrap()))
            .unwrap()
            .action
            .into()
    }

    fn examples() -> Vec<Action> {
        vec![
            Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(2) },
            Action::TransferLeadership { group: GroupId(7), to: NodeId(3) },
            Action::AddNode {
                node: NewNode {
                    id: NodeId(4),
                    name: "grey-owl".to_owned(),
                    zone: "b".to_owned(),
                    weight: 3,
                    api_addr: "127.0.0.1:7704".to_owned(),
                    peer_addr: "127.0.0.1:7804".to_owned(),
                    public_url: "https://four.example.org".to_owned(),
                },
            },
            Action::ChangeVoters { voters: [1, 2, 4].map(NodeId).into() },
            Action::RemoveNode { node: NodeId(3) },
            Action::DrainNode { node: NodeId(3) },
            Action::ActivateNode { node: NodeId(3) },
            Action::ReleaseLock { name: "jobs/nightly".to_owned(), token: None },
            Action::ReleaseLock { name: "-it's/☂".to_owned(), token: Some(Token(412)) },
            Action::SetEndpointState {
                upstream: "web".to_owned(),
                endpoint: "e1".to_owned(),
                state: EndpointState::Drain,
            },
            Action::FailOverUpstream { upstream: "db".to_owned(), to: None },
            Action::FailOverUpstream { upstream: "db".to_owned(), to: Some("db-2".to_owned()) },
            Action::Undo { operation: OperationId(17) },
        ]
    }

    #[test]
    fn every_action_survives_a_round_trip() {
        for action in examples() {
            assert_eq!(parse(&action.cli_arguments()), action);
        }
        let tried: BTreeSet<_> = examples().iter().map(Action::type_name).collect();
        assert_eq!(tried, Action::TYPES.iter().copied().collect(), "there is an example of every action");
    }

    #[test]
    fn defaults_may_be_omitted() {
        assert_eq!(
            parse("transfer_leadership --to 2"),
            Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(2) }
        );
        let Action::AddNode { node } =
            parse("add_node --id 4 --name x --api-addr 127.0.0.1:7704 --peer-addr 127.0.0.1:7804")
        else {
            panic!("an add_node");
        };
        assert_eq!((node.public_url.as_str(), node.weight), ("http://127.0.0.1:7704", 1));
    }
}
