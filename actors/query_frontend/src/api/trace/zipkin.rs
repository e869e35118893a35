//! Zipkin lets a client span and its server span share one id. Answers tell them apart: the server span gets an id of its own
//! below the client's, and what called the shared id its parent is below the server span.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use vivace_protocol::SpanId;
use vivace_protocol::otlp::trace::Span;
use vivace_protocol::otlp::trace::span::SpanKind;
use vivace_protocol::tempopb::Trace;
use vivace_protocol::trace_walk::{SpanHead, for_each_span};
use vivace_protocol::wire::WireError;

/// Whether a client and a server span of an encoded trace share an id.
pub(crate) fn has_shared_ids(trace: &Bytes) -> Result<bool, WireError> {
    let mut sides: HashMap<SpanId, (bool, bool)> = HashMap::new();
    for_each_span(trace, |span| {
        let head = SpanHead::read(span.span)?;
        if head.kind == SpanKind::Client as i32 {
            sides.entry(head.span_id).or_default().0 = true;
        } else if head.kind == SpanKind::Server as i32 {
            sides.entry(head.span_id).or_default().1 = true;
        }
        Ok::<(), WireError>(())
    })?;
    Ok(sides.values().any(|(client, server)| *client && *server))
}

/// Gives server spans that share their id with a client span ids of their own: the smallest that no span has, from 1 on.
pub(crate) fn separate(trace: &mut Trace) {
    let mut used: HashSet<Vec<u8>> = HashSet::new();
    let mut clients: HashSet<Vec<u8>> = HashSet::new();
    for_each(trace, |span| {
        used.insert(span.span_id.clone());
        if span.kind == SpanKind::Client as i32 {
            clients.insert(span.span_id.clone());
        }
    });
    let mut next: u64 = 0;
    // By the shared id, the first server span's new one.
    let mut moved: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut servers: HashSet<Vec<u8>> = HashSet::new();
    for_each(trace, |span| {
        if span.kind != SpanKind::Server as i32 || !clients.contains(&span.span_id) {
            return;
        }
        let own = loop {
            next += 1;
            let id = next.to_be_bytes().to_vec();
            if !used.contains(&id) {
                break id;
            }
        };
        servers.insert(own.clone());
        let shared = std::mem::replace(&mut span.span_id, own.clone());
        span.parent_span_id.clone_from(&shared);
        moved.entry(shared).or_insert(own);
    });
    for_each(trace, |span| {
        if !servers.contains(&span.span_id)
            && let Some(server) = moved.get(&span.parent_span_id)
        {
            span.parent_span_id.clone_from(server);
        }
    });
}

fn for_each(trace: &mut Trace, mut f: impl FnMut(&mut Span)) {
    let scopes = trace.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans);
    scopes.flat_map(|scope| &mut scope.spans).for_each(&mut f);
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans};

    use super::*;

    fn id(n: u64) -> Vec<u8> {
        n.to_be_bytes().to_vec()
    }

    fn span(name: &str, own: u64, parent: u64, kind: SpanKind) -> Span {
        let parent_span_id = if parent == 0 { Vec::new() } else { id(parent) };
        Span { name: name.into(), span_id: id(own), parent_span_id, kind: kind.into(), ..Span::default() }
    }

    fn trace(spans: Vec<Span>) -> Trace {
        let scopes = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        Trace { resource_spans: vec![ResourceSpans { scope_spans: scopes, ..ResourceSpans::default() }] }
    }

    #[test]
    fn a_shared_id_becomes_two_and_the_children_are_the_servers() {
        let mut shared = trace(vec![
            span("root", 1, 0, SpanKind::Internal),
            span("client", 9, 1, SpanKind::Client),
            span("server", 9, 1, SpanKind::Server),
            span("child", 3, 9, SpanKind::Internal),
        ]);
        assert!(has_shared_ids(&shared.encode_to_vec().into()).unwrap());
        separate(&mut shared);
        let spans = &shared.resource_spans[0].scope_spans[0].spans;
        let ids: Vec<_> =
            spans.iter().map(|s| (s.name.as_str(), s.span_id.clone(), s.parent_span_id.clone())).collect();
        assert_eq!(
            ids,
            [("root", id(1), Vec::new()), ("client", id(9), id(1)), ("server", id(2), id(9)), ("child", id(3), id(2)),]
        );
        assert!(!has_shared_ids(&shared.encode_to_vec().into()).unwrap());
    }

    #[test]
    fn traces_without_shared_ids_stay_as_they_are() {
        let mut plain = trace(vec![span("client", 9, 1, SpanKind::Client), span("server", 8, 9, SpanKind::Server)]);
        assert!(!has_shared_ids(&plain.encode_to_vec().into()).unwrap());
        let before = plain.clone();
        separate(&mut plain);
        assert_eq!(plain, before);
    }
}
