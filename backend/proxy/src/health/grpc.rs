//! The health check of gRPC: one call of `grpc.health.v1.Health/Check`, as Kubernetes and Envoy make it.
//!
//! A call is an HTTP/2 POST. Its messages have a prefix of five bytes, a flag for compression and the length; the status
//! of the call is in the trailers. The two messages have one field each, so they are written and read here rather than by
//! a library for Protocol Buffers: `HealthCheckRequest { string service = 1; }` and
//! `HealthCheckResponse { ServingStatus status = 1; }`.

use crate::wire::{
    headers::CHECK_USER_AGENT,
    http2::{client_builder, describe, drive},
};
use bytes::{BufMut, Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use hyper::{HeaderMap, Request, header::CONTENT_TYPE};
use std::time::Duration;
use tokio::net::TcpStream;

const PATH: &str = "/grpc.health.v1.Health/Check";
const CONTENT: &str = "application/grpc";
/// The flag and the length before each message.
const PREFIX_BYTES: usize = 5;
/// The answer is one number.
const MAX_ANSWER_BYTES: usize = 1024;
/// The status `SERVING` of an answer.
const SERVING: u64 = 1;

/// What the endpoint answers about a service; about the whole server if it is empty.
pub async fn check(stream: TcpStream, host: &str, service: &str, limit: Duration) -> Result<String, String> {
    let request = Request::post(format!("http://{host}{PATH}"))
        .header(CONTENT_TYPE, CONTENT)
        .header("te", "trailers")
        .header("grpc-timeout", format!("{}m", limit.as_millis()))
        .header("user-agent", CHECK_USER_AGENT)
        .body(());
    let request = request.map_err(|error| error.to_string())?;
    let handshake = client_builder().handshake::<_, Bytes>(stream).await;
    let (requests, connection) = handshake.map_err(|error| describe(&error))?;
    drive(connection, call(requests, request, service)).await.flatten()
}

/// The inner result is the endpoint's answer.
async fn call(
    requests: SendRequest<Bytes>,
    request: Request<()>,
    service: &str,
) -> Result<Result<String, String>, h2::Error> {
    let mut requests = requests.ready().await?;
    let (response, mut body) = requests.send_request(request, false)?;
    body.send_data(question(service), true)?;
    let (head, mut body) = response.await?.into_parts();
    let is_grpc =
        head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(CONTENT.as_bytes()));
    if head.status != 200 || !is_grpc {
        return Ok(Err(format!("status {}, and no gRPC response", head.status.as_u16())));
    }
    // A call that fails at once has its status in the head, and no trailers.
    if let Some(Err(status)) = call_status(&head.headers) {
        return Ok(Err(status));
    }
    let Some(answer) = read(&mut body).await? else {
        return Ok(Err(format!("a response of more than {MAX_ANSWER_BYTES} bytes")));
    };
    let trailers = body.trailers().await?;
    Ok(judge(&answer, trailers.as_ref()))
}

fn judge(answer: &[u8], trailers: Option<&HeaderMap>) -> Result<String, String> {
    trailers.and_then(call_status).unwrap_or_else(|| Err("no gRPC status".to_owned()))?;
    match serving_status(answer)? {
        SERVING => Ok("SERVING".to_owned()),
        0 => Err("UNKNOWN".to_owned()),
        2 => Err("NOT_SERVING".to_owned()),
        3 => Err("SERVICE_UNKNOWN".to_owned()),
        other => Err(format!("serving status {other}")),
    }
}

fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        // Field 1, with a length before its bytes. The length of a service fits in two bytes of a varint.
        message.put_u8(0x0a);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// None if there is more than an answer may have.
async fn read(body: &mut RecvStream) -> Result<Option<Vec<u8>>, h2::Error> {
    let mut arrived = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        arrived.extend_from_slice(&data);
        if arrived.len() > MAX_ANSWER_BYTES {
            return Ok(None);
        }
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(Some(arrived))
}

/// Whether the call succeeded; none if these fields do not say.
fn call_status(headers: &HeaderMap) -> Option<Result<(), String>> {
    let code = headers.get("grpc-status")?.to_str().unwrap_or_default();
    Some(match code {
        "0" => Ok(()),
        "5" => Err("the server does not know this service (gRPC status 5, NOT_FOUND)".to_owned()),
        "12" => Err("the server has no health service (gRPC status 12, UNIMPLEMENTED)".to_owned()),
        other => {
            let message = headers.get("grpc-message").and_then(|message| message.to_str().ok());
            let message = message.map(|message| format!(": {message:.100}")).unwrap_or_default();
            Err(format!("gRPC status {other:.20}{message}"))
        }
    })
}

/// The status in a framed `HealthCheckResponse`. A field that is absent has the value 0, and unknown fields are skipped.
fn serving_status(framed: &[u8]) -> Result<u64, String> {
    let malformed = || "a malformed gRPC response".to_owned();
    let (prefix, message) = framed.split_first_chunk::<PREFIX_BYTES>().ok_or_else(malformed)?;
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 || u32::from_be_bytes(length) as usize != message.len() {
        return Err(malformed());
    }
    let (mut rest, mut status) = (message, 0);
    while !rest.is_empty() {
        let key = take_varint(&mut rest).ok_or_else(malformed)?;
        let skipped = match key & 7 {
            0 => {
                let value = take_varint(&mut rest).ok_or_else(malformed)?;
                if key >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => take_varint(&mut rest).ok_or_else(malformed)?,
            5 => 4,
            _ => return Err(malformed()),
        };
        let skipped = usize::try_from(skipped).map_err(|_| malformed())?;
        rest = rest.get(skipped..).ok_or_else(malformed)?;
    }
    Ok(status)
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Response;
    use std::net::Ipv4Addr;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Frames as grpcio 1.85.3 sends them for `HealthCheckRequest(service="app")` and its answers.
    #[test]
    fn messages_have_the_bytes_of_protocol_buffers() {
        assert_eq!(question(""), &b"\0\0\0\0\0"[..]);
        assert_eq!(question("app"), &b"\0\0\0\0\x05\x0a\x03app"[..]);
        let long = "s".repeat(200);
        assert_eq!(&question(&long)[..8], b"\0\0\0\0\xcb\x0a\xc8\x01");
        assert_eq!(serving_status(b"\0\0\0\0\x02\x08\x01"), Ok(1));
        assert_eq!(serving_status(b"\0\0\0\0\0"), Ok(0), "an absent field is 0");
        assert_eq!(serving_status(b"\0\0\0\0\x06\x12\x02hi\x08\x02"), Ok(2), "field 2 is skipped");
        for wrong in [
            &b""[..],
            b"\0\0\0\0",
            b"\x01\0\0\0\x02\x08\x01",
            b"\0\0\0\0\x03\x08\x01",
            b"\0\0\0\0\x01\x08",
            b"\0\0\0\0\x02\x12\x05",
            b"\0\0\0\0\x02\x0b\x01",
            b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(serving_status(wrong).is_err(), "{wrong:?}");
        }
    }

    /// A server that answers one call.
    async fn answered(
        status: u16,
        head: &[(&str, &str)],
        body: &[u8],
        trailers: &[(&str, &str)],
    ) -> Result<String, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let fields = |fields: &[(&str, &str)]| {
            let fields = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            fields.collect::<HeaderMap>()
        };
        let (mut response, body, trailers) =
            (Response::new(()), Bytes::copy_from_slice(body), fields(trailers));
        *response.status_mut() = status.try_into().unwrap();
        *response.headers_mut() = fields(head);
        let serve = async move {
            let stream = listener.accept().await.unwrap().0;
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            assert_eq!((request.method().as_str(), request.uri().path()), ("POST", PATH));
            assert_eq!(
                (&request.headers()["te"], &request.headers()["grpc-timeout"]),
                (&"trailers".parse().unwrap(), &"1000m".parse().unwrap())
            );
            let ends = body.is_empty() && trailers.is_empty();
            let mut stream = respond.send_response(response, ends).unwrap();
            if !ends {
                stream.send_data(body, trailers.is_empty()).unwrap();
            }
            if !trailers.is_empty() {
                stream.send_trailers(trailers).unwrap();
            }
            // Sends what is queued.
            while connection.accept().await.is_some() {}
        };
        let serving = tokio::spawn(serve);
        let found = check(stream, "h:1", "app", Duration::from_secs(1)).await;
        serving.abort();
        found
    }

    #[tokio::test]
    async fn only_serving_is_healthy() {
        let (grpc, ok) = ([("content-type", "application/grpc")], [("grpc-status", "0")]);
        assert_eq!(answered(200, &grpc, b"\0\0\0\0\x02\x08\x01", &ok).await, Ok("SERVING".to_owned()));
        let ill = answered(200, &grpc, b"\0\0\0\0\x02\x08\x02", &ok).await;
        assert_eq!(ill, Err("NOT_SERVING".to_owned()));
        let cut = answered(200, &grpc, b"\0\0\0\0\x02\x08\x01", &[]).await;
        assert_eq!(cut, Err("no gRPC status".to_owned()));
        let failed =
            answered(200, &grpc, b"\0\0\0\0\x02\x08\x01", &[("grpc-status", "14"), ("grpc-message", "down")])
                .await;
        assert_eq!(failed, Err("gRPC status 14: down".to_owned()));
        let unknown = answered(200, &[grpc[0], ("grpc-status", "5")], b"", &[]).await;
        assert!(unknown.clone().is_err_and(|error| error.contains("NOT_FOUND")), "{unknown:?}");
        let unimplemented = answered(200, &[grpc[0], ("grpc-status", "12")], b"", &[]).await;
        assert!(
            unimplemented.clone().is_err_and(|error| error.contains("no health service")),
            "{unimplemented:?}"
        );
        let plain = answered(404, &[("content-type", "text/plain")], b"no", &[]).await;
        assert_eq!(plain, Err("status 404, and no gRPC response".to_owned()));
        let long = answered(200, &grpc, &[0; 2 * MAX_ANSWER_BYTES], &ok).await;
        assert!(long.clone().is_err_and(|error| error.contains("more than 1024 bytes")), "{long:?}");
    }

    /// A server that closes the connection in the same moment in which it answers, as one that serves one request does.
    #[tokio::test]
    async fn an_answer_counts_though_its_connection_ends_with_it() {
        const FRAMES: [&[u8]; 5] = [
            b"\0\0\0\x04\0\0\0\0\0",
            // `:status: 200` and `content-type: application/grpc` on stream 1.
            b"\0\0\x14\x01\x04\0\0\0\x01\x88\x0f\x10\x10application/grpc",
            b"\0\0\x07\0\0\0\0\0\x01\0\0\0\0\x02\x08\x01",
            b"\0\0\x0f\x01\x05\0\0\0\x01\0\x0bgrpc-status\x010",
            // GOAWAY after stream 1.
            b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0",
        ];
        for (frames, found) in [
            (&FRAMES[..], Ok("SERVING".to_owned())),
            (&FRAMES[..4], Ok("SERVING".to_owned())),
            (&FRAMES[..3], Err("closed the connection".to_owned())),
        ] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let frames = frames.concat();
            let serve = async move {
                let mut stream = listener.accept().await.unwrap().0;
                let mut question = Vec::new();
                while !question.ends_with(b"app") {
                    stream.read_buf(&mut question).await.unwrap();
                }
                stream.write_all(&frames).await.unwrap();
                stream.shutdown().await.unwrap();
                // A connection that is closed over unread bytes is reset.
                while stream.read_buf(&mut question).await.is_ok_and(|read| read > 0) {}
            };
            let (answer, ()) = tokio::join!(check(stream, "h:1", "app", Duration::from_secs(5)), serve);
            assert_eq!(answer, found);
        }
    }
}
