use super::*;
use crate::refusals::Refusals;
use std::net::Ipv4Addr;
use tokio::net::TcpListener;

#[tokio::test]
async fn an_idle_connection_gives_back_the_memory_of_a_large_request() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let context = WorkerContext::new(0, Arc::default(), Arc::<Refusals>::default());
    let mut connection = Http1Connection::new(stream, peer, None, Arc::new(context));
    let reading = async {
        while connection.received.len() < 60_000 {
            connection.received.read_from(&mut connection.stream).await.unwrap();
        }
    };
    let (written, ()) = tokio::join!(client.write_all(&[b'x'; 60_000]), reading);
    written.unwrap();
    connection.received.consume(60_000);
    connection.request.reserve(60_000);
    connection.response.reserve(60_000);
    let held = |connection: &Http1Connection| {
        connection.received.capacity() + connection.request.capacity() + connection.response.capacity()
    };
    // The next request comes soon: nothing is given back.
    client.write_all(b"G").await.unwrap();
    assert!(connection.first_byte().await && held(&connection) > 180_000);
    connection.received.consume(1);
    // And this one comes late. No byte of it is lost.
    let late = async {
        tokio::time::sleep(RELEASE_AFTER + Duration::from_millis(300)).await;
        client.write_all(b"GET").await.unwrap();
    };
    let (is_there, ()) = tokio::join!(connection.first_byte(), late);
    assert!(is_there && connection.received.filled() == b"GET");
    assert!(held(&connection) < 10_000, "{} bytes", held(&connection));
}
