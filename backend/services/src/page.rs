//! Lists, a page at a time.

use crate::{Read, ReadRequest, ServiceError, Services};
use ringmaster_cluster::State;
use ringmaster_common::{error::Refusal, page::Page};

/// How many items a page has unless the client asks for fewer or more.
pub const DEFAULT_LIMIT: usize = 100;
/// How many items a page has at most.
pub const MAX_LIMIT: usize = 1000;

/// Which page of a list: at most `limit` items, from behind the cursor `after`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paging<C> {
    pub limit: usize,
    pub after: C,
}

/// Cuts a page off the rest of a list. The cursor is made from the last item of the page.
pub fn page<T>(mut rest: impl Iterator<Item = T>, limit: usize, cursor: impl Fn(&T) -> String) -> Page<T> {
    let items: Vec<T> = rest.by_ref().take(limit).collect();
    let next = if rest.next().is_some() { items.last().map(cursor) } else { None };
    Page { items, next }
}

impl Services {
    /// Reads a page of a list that `list` cuts off the state.
    pub(crate) async fn list<T>(
        &self,
        request: ReadRequest,
        list: impl FnOnce(&State) -> Result<Page<T>, Refusal>,
    ) -> Result<Read<Page<T>>, ServiceError> {
        self.read(request).await?.find(|state| list(&state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_next_one_only_where_there_is_more() {
        let cursor = |item: &u32| item.to_string();
        let first = page([1, 2, 3].into_iter(), 2, cursor);
        assert_eq!((first.items, first.next.as_deref()), (vec![1, 2], Some("2")));
        let last = page([3].into_iter(), 2, cursor);
        assert_eq!((last.items, last.next), (vec![3], None));
        assert_eq!(page([1, 2].into_iter(), 2, cursor).next, None);
    }
}
