pub enum Request {
    AddNode,
    Chaos { node: ringmaster_common::id::NodeId, chaos: ringmaster_common::demo::Chaos },
}
pub fn is_demo() -> bool {
    false
}
pub async fn ask(_: Request) -> Result<ringmaster_common::demo::DemoNode, ringmaster_common::error::Refusal> {
    unimplemented!()
}
