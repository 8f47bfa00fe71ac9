//! Clients that are slow, too many, malformed or not allowed, and the stop.

use super::*;

/// A client that sends nothing, or a head that never ends, is dropped; so is one that never reads; others go on.
#[tokio::test]
async fn clients_that_make_us_wait_are_dropped() {
    let server = TestServer::start();
    server.add_long_file("f");
    let mut silent = server.connect().await;
    let mut trickling = server.connect().await;
    let mut never_reading = connect_with_small_buffer(&server);
    let mut idle = server.connect().await;
    trickling.stream.write_all(b"GET / HT").await.unwrap();
    never_reading.send("GET", "/files/f").await;
    assert_eq!(idle.get("/bytes").await.status, 200);
    tokio::time::sleep(Duration::from_millis(300)).await;

    server.let_pass(Duration::from_secs(20)).await;
    trickling.stream.write_all(b"T").await.unwrap();
    server.let_pass(Duration::from_secs(15)).await;
    assert!(silent.is_closed_orderly().await);
    assert!(trickling.stream.read(&mut [0; 9]).await.map_or(true, |read| read == 0));
    assert_eq!(idle.get("/bytes").await.status, 200);
    server.let_pass(Duration::from_secs(40)).await;
    let dropped = tokio::time::timeout(Duration::from_secs(5), never_reading.is_closed_orderly()).await.unwrap();
    assert!(!dropped);
    assert_eq!(idle.get("/bytes").await.status, 200);
    server.let_pass(Duration::from_secs(91)).await;
    assert!(idle.is_closed_orderly().await);
}

/// A client over its limit is told so with a text, and is served again once it has closed a connection.
#[tokio::test]
async fn client_over_its_limit_is_told() {
    let server = TestServer::start_with(|config| config.limits.max_per_client = 2);
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    assert_eq!(first.get("/bytes").await.status, 200);
    assert_eq!(second.get("/bytes").await.status, 200);
    let refused = server.connect().await.get("/bytes").await;
    assert_eq!(refused.status, 503);
    assert!(String::from_utf8(refused.body).unwrap().contains("-max-connections-per-client"));
    drop(first);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.connect().await.get("/bytes").await.status, 200);
}

/// When all connections are taken, idle ones give way; when all are at work, the new one is told.
#[tokio::test]
async fn idle_connections_give_way() {
    let server = TestServer::start_with(|config| config.limits.max_connections = 2);
    let mut idle = server.connect().await;
    assert_eq!(idle.get("/bytes").await.status, 200);
    let mut waiting = server.connect().await;
    waiting.send("GET", "/wait").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut newer = server.connect().await;
    newer.send("GET", "/wait").await;
    assert!(idle.is_closed_orderly().await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.connect().await.get("/bytes").await.status, 503);
    assert_eq!(waiting.answer().await.unwrap().body, b"waited");
    assert_eq!(newer.answer().await.unwrap().body, b"waited");
}

/// A request head that is too long is refused, not kept in memory; garbage is refused too.
#[tokio::test]
async fn long_heads_and_garbage_are_refused() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let long = format!("GET / HTTP/1.1\r\nHost: larder\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let _ = client.stream.write_all(long.as_bytes()).await;
    let answered = client.head().await;
    assert!(answered.is_none_or(|head| head.status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16()));
    let mut client = server.connect().await;
    client.stream.write_all(b"\x16\x03\x01\x00garbage\r\n\r\n").await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 400);
    assert_eq!(server.connect().await.get("/bytes").await.status, 200);
}

/// On stop, idle connections close at once, running answers end, new clients are not accepted.
#[tokio::test]
async fn drain_lets_running_answers_end() {
    let mut server = TestServer::start();
    let mut idle = server.connect().await;
    assert_eq!(idle.get("/bytes").await.status, 200);
    let mut running = server.connect().await;
    running.send("GET", "/wait").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop.cancel();
    assert!(idle.is_closed_orderly().await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(TcpStream::connect(server.address).await.is_err());
    let answer = running.answer().await.unwrap();
    assert_eq!(answer.body, b"waited");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(running.is_closed_orderly().await);
    tokio::time::timeout(Duration::from_secs(1), &mut server.served).await.unwrap().unwrap();
}

/// A client that never reads cannot hold up the stop beyond the deadline.
#[tokio::test]
async fn drain_ends_at_its_deadline() {
    let mut server = TestServer::start_with(|config| config.drain_deadline = Duration::from_millis(300));
    server.add_long_file("f");
    let mut never_reading = connect_with_small_buffer(&server);
    never_reading.send("GET", "/files/f").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.stop.cancel();
    tokio::time::timeout(Duration::from_secs(2), &mut server.served).await.unwrap().unwrap();
    assert!(!never_reading.is_closed_orderly().await);
}

/// A client that is not allowed gets a text that names the flag.
#[tokio::test]
async fn refused_client_is_told_the_flag() {
    let listener = listener::bind(&[Ipv4Addr::LOCALHOST.into()], 0).unwrap().remove(0);
    let address = listener.local_addr().unwrap();
    for method in ["GET", "HEAD"] {
        let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let client = "192.0.2.9".parse().unwrap();
        Refusals::new().refuse(&Tasks::new(), accepted.unwrap().0, Refusal::NotAllowed(client));
        let mut client = Client { stream: stream.unwrap(), buffer: Vec::new() };
        client.send(method, "/x").await;
        let head = client.head().await.unwrap();
        assert_eq!(head.status, 403);
        assert!(client.is_closed_orderly().await);
        let text = String::from_utf8(client.buffer).unwrap();
        assert_eq!(text.contains("192.0.2.9") && text.contains("-allow"), method == "GET", "{text}");
    }
}
