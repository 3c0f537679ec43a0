//! Ids. All are integers below 2^53, so that a browser's numbers hold them exactly.

use serde::{Deserialize, Serialize};
use std::{fmt, num::ParseIntError, str::FromStr};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                $name(number)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<Self, ParseIntError> {
                text.parse().map($name)
            }
        }
    };
}

id!(
    /// One running `ringmaster` process. Never used again for another node.
    NodeId
);
id!(
    /// A log index of the cluster group, as clients see it: the version of the whole view.
    /// Revisions grow and may skip numbers.
    Revision
);
id!(
    /// A proposed change. Ids grow in the order of creation.
    PlanId
);
id!(
    /// A plan being run. Ids grow in the order of starting.
    OperationId
);
id!(
    /// A fencing token: one for each grant, from one counter of the whole cluster. Tokens only grow,
    /// across restarts, changes of leader and restores.
    Token
);
id!(
    /// A Raft group. Group 0 holds the control plane.
    GroupId
);
id!(
    /// The lifetime of a cluster's history. A restore, or a recovery from lost quorum, starts a
    /// new one, with all revisions above those of the last.
    Incarnation
);

impl GroupId {
    /// Group 0, the cluster group.
    pub const CLUSTER: GroupId = GroupId(0);
}
