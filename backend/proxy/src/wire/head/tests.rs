use super::*;

fn request(text: &str) -> Result<Option<(Framing, bool)>, String> {
    let mut room = room();
    let head = super::request(text.as_bytes(), &mut room).map_err(|refusal| refusal.detail)?;
    Ok(head.map(|head| (head.framing, head.upgrade.is_some())))
}

#[test]
fn the_framing_is_what_the_head_says() {
    for (headers, framing) in [
        ("", Framing::Empty),
        ("Content-Length: 0\r\n", Framing::Empty),
        ("Content-Length: 17\r\n", Framing::Length(17)),
        ("transfer-encoding: Chunked\r\n", Framing::Chunked),
    ] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        assert_eq!(request(&text), Ok(Some((framing, false))), "{text:?}");
        assert_eq!(request(&text[..text.len() - 1]), Ok(None), "more has to come");
    }
}

#[test]
fn what_two_servers_could_read_differently_is_refused() {
    for text in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Host\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, content-length\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.2x\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert!(request(text).is_err(), "{text:?} is {:?}", request(text));
    }
}

#[test]
fn an_upgrade_is_one_only_where_connection_says_so() {
    let upgrade =
        |headers: &str| request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n")).unwrap().unwrap().1;
    assert!(upgrade("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"));
    assert!(!upgrade("Upgrade: websocket\r\n"));
    assert!(
        !upgrade("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"),
        "HTTP/2 would hide what comes"
    );
}

#[test]
fn there_are_so_many_headers_and_no_more() {
    let text = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert!(request(&text(MAX_HEADERS)).is_ok());
    assert!(request(&text(MAX_HEADERS + 1)).is_err());
}

#[test]
fn a_response_says_where_it_ends() {
    let framing = |text: &str, head: bool, upgrade: bool| {
        let mut room = room();
        let found =
            response(text.as_bytes(), &mut room, RequestFacts { is_head: head, wants_upgrade: upgrade });
        found.map(|head| head.map(|head| (head.framing, head.keeps_alive))).map_err(|refusal| refusal.detail)
    };
    for (text, head, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false, (Framing::Length(3), true)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true, (Framing::Empty, true)),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", false, (Framing::Empty, true)),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, (Framing::Empty, true)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, (Framing::Chunked, true)),
        ("HTTP/1.1 200 OK\r\n\r\n", false, (Framing::Close, false)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", false, (Framing::Length(3), false)),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",
            false,
            (Framing::Length(3), false),
        ),
    ] {
        assert_eq!(framing(text, head, false), Ok(Some(expected)), "{text:?}");
    }
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\r\n";
    assert!(framing(switching, false, true).is_ok() && framing(switching, false, false).is_err());
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 3\n\n",
        "HTTP/3 200 OK\r\n\r\n",
        "garbage\r\n\r\n",
    ] {
        assert!(framing(text, false, false).is_err(), "{text:?}");
    }
}

#[test]
fn an_endpoint_says_how_long_it_keeps_a_connection() {
    for (value, expected) in [
        ("timeout=5", Some(5)),
        ("max=100, Timeout = 15", Some(15)),
        ("timeout=\"7\"", Some(7)),
        ("timeout=0", Some(0)),
        ("timeout=-1", None),
        ("max=100", None),
        ("5", None),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: {value}\r\n\r\n");
        let facts = RequestFacts { is_head: false, wants_upgrade: false };
        let mut room = room();
        let head = response(text.as_bytes(), &mut room, facts).unwrap().unwrap();
        assert_eq!(head.keep_alive_s, expected, "{value}");
    }
}
