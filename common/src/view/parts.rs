//! The view in parts, for messages of bounded size: a header without lists, then parts with the items of the lists.
//!
//! What always holds: a header with all its parts added, in order, is the view that was split.

use super::ClusterView;
use crate::{
    cluster::Node,
    id::Revision,
    operation::Operation,
    setting::Setting,
    traffic::{
        route::Route,
        upstream::{Endpoint, Upstream},
    },
};
use serde::{Deserialize, Serialize};
use std::{io, mem};

/// Some items of a view.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewPart {
    /// The revision of the view.
    pub revision: Revision,
    /// The number of this part, from 1 to the number of `parts` in the header.
    pub part: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Node>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Operation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Upstream>,
    /// Further endpoints of upstreams from this part or an earlier one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<FurtherEndpoints>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

/// Endpoints that follow those of their upstream that were sent before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FurtherEndpoints {
    pub upstream: String,
    pub items: Vec<Endpoint>,
}

impl ClusterView {
    /// Adds the items of a part.
    pub fn add(&mut self, part: ViewPart) {
        part.nodes.into_iter().for_each(|node| self.nodes.put(node));
        part.settings.into_iter().for_each(|setting| self.settings.put(setting));
        part.operations.into_iter().for_each(|operation| self.operations.put(operation));
        part.upstreams.into_iter().for_each(|upstream| self.upstreams.put(upstream));
        for further in part.endpoints {
            if let Some(upstream) = self.upstreams.get_mut(&further.upstream) {
                upstream.config.endpoints.extend(further.items);
            }
        }
        part.routes.into_iter().for_each(|route| self.routes.put(route));
    }

    /// The header and the parts. A part has up to `max_bytes` bytes of JSON in its lists, or a single item.
    pub fn split(mut self, max_bytes: usize) -> (ClusterView, Vec<ViewPart>) {
        let mut parts = Parts { max_bytes, bytes: 0, open: ViewPart::default(), closed: Vec::new() };
        for node in mem::take(&mut self.nodes) {
            parts.item(json_bytes(&node)).nodes.push(node);
        }
        for setting in mem::take(&mut self.settings) {
            parts.item(json_bytes(&setting)).settings.push(setting);
        }
        for operation in mem::take(&mut self.operations) {
            parts.item(json_bytes(&operation)).operations.push(operation);
        }
        for upstream in mem::take(&mut self.upstreams) {
            parts.upstream(upstream);
        }
        for route in mem::take(&mut self.routes) {
            parts.item(json_bytes(&route)).routes.push(route);
        }
        (self.clone(), parts.close(self.revision))
    }
}

struct Parts {
    max_bytes: usize,
    /// The size of the items in the open part.
    bytes: usize,
    open: ViewPart,
    closed: Vec<ViewPart>,
}

impl Parts {
    /// The part that an item of this size goes into.
    fn item(&mut self, bytes: usize) -> &mut ViewPart {
        if self.bytes > 0 && self.bytes + bytes > self.max_bytes {
            self.closed.push(mem::take(&mut self.open));
            self.bytes = 0;
        }
        self.bytes += bytes;
        &mut self.open
    }

    fn upstream(&mut self, mut upstream: Upstream) {
        let bytes = json_bytes(&upstream);
        if bytes <= self.max_bytes {
            self.item(bytes).upstreams.push(upstream);
            return;
        }
        let (name, endpoints) = (upstream.name.clone(), mem::take(&mut upstream.config.endpoints));
        self.item(json_bytes(&upstream)).upstreams.push(upstream);
        for endpoint in endpoints {
            let part = self.item(json_bytes(&endpoint));
            match part.endpoints.last_mut().filter(|further| further.upstream == name) {
                Some(further) => further.items.push(endpoint),
                None => {
                    part.endpoints.push(FurtherEndpoints { upstream: name.clone(), items: vec![endpoint] })
                }
            }
        }
    }

    fn close(mut self, revision: Revision) -> Vec<ViewPart> {
        if self.bytes > 0 {
            self.closed.push(self.open);
        }
        for (part, number) in self.closed.iter_mut().zip(1..) {
            (part.revision, part.part) = (revision, number);
        }
        self.closed
    }
}

/// The length of a value in compact JSON.
pub fn json_bytes(value: &impl Serialize) -> usize {
    struct Count(usize);

    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    // Counting does not fail, and the types of the API are plain data.
    serde_json::to_writer(&mut count, value).ok();
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Timestamp,
        id::NodeId,
        traffic::{
            health::{HealthOpinion, Verdict},
            upstream::{Configured, EndpointSpec},
        },
    };
    use serde_json::json;

    fn upstream(name: &str, endpoints: usize) -> Upstream {
        let endpoint = |number: usize| {
            let spec = EndpointSpec { id: format!("e{number}"), addr: "a:1".to_owned(), weight: 1 };
            let mut endpoint = Endpoint::new(&spec, Timestamp::default());
            endpoint.health.opinions = vec![HealthOpinion {
                observer: NodeId(1),
                verdict: Verdict::Unhealthy,
                detail: "connection refused".to_owned(),
                since: Timestamp::default(),
            }];
            endpoint
        };
        Upstream {
            name: name.to_owned(),
            config: Configured { endpoints: (0..endpoints).map(endpoint).collect(), ..Default::default() },
            primary: None,
            version: Revision(7),
            updated_at: Timestamp::default(),
            updated_by: "ops".to_owned(),
        }
    }

    #[test]
    fn the_parts_make_up_the_view_again_and_none_is_too_large() {
        let setting = |number: usize| Setting {
            key: format!("key-{number}"),
            value: json!("x".repeat(number * 40)),
            version: Revision(number as u64),
            updated_at: None,
            updated_by: None,
        };
        let view = ClusterView {
            name: "c".to_owned(),
            revision: Revision(9),
            settings: (0..100).map(setting).collect(),
            upstreams: [upstream("small", 1), upstream("large", 256), upstream("empty", 0)]
                .into_iter()
                .collect(),
            audit_count: 4,
            ..ClusterView::default()
        };
        let max = 10_000;
        let (header, parts) = view.clone().split(max);
        assert!(header.settings.is_empty() && header.upstreams.is_empty());
        assert!(parts.len() > 20, "{} parts", parts.len());
        assert_eq!(
            parts.iter().map(|part| part.part).collect::<Vec<_>>(),
            Vec::from_iter(1..=parts.len() as u32)
        );
        let mut joined = header;
        for part in parts {
            assert!(json_bytes(&part) < max + 2_000, "{} bytes", json_bytes(&part));
            // As it arrives.
            let text = serde_json::to_string(&part).unwrap();
            joined.add(serde_json::from_str(&text).unwrap());
        }
        assert_eq!(serde_json::to_string(&joined).unwrap(), serde_json::to_string(&view).unwrap());
    }

    #[test]
    fn the_view_of_an_empty_cluster_has_no_parts() {
        let (header, parts) = ClusterView::default().split(1_000);
        assert_eq!((header, parts.len()), (ClusterView::default(), 0));
    }
}
