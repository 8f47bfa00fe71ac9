//! What arrives at a client is what the file holds, whole and in order, or a broken connection.

use super::*;

/// Every size around the bounds of pages, pieces and reading arrives byte for byte, over one connection.
#[tokio::test]
async fn files_of_every_size_arrive_unchanged() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for size in [
        0,
        1,
        4095,
        4096,
        4097,
        16_383,
        16_384,
        16_385,
        262_143,
        262_144,
        262_145,
        1_000_003,
        1 << 20,
        (1 << 20) + 1,
        3 << 20,
    ] {
        let bytes = server.add_file(&format!("f{size}"), size);
        let answer = client.get(&format!("/files/f{size}")).await;
        assert_eq!(answer.header("Content-Length"), Some(size.to_string().as_str()));
        assert!(answer.body == bytes, "size {size}");
    }
}

/// A file that is not in memory arrives unchanged too, small or big.
#[tokio::test]
async fn files_out_of_memory_arrive_unchanged() {
    let server = TestServer::start();
    for size in [3_000, 2_500_000] {
        let name = format!("f{size}");
        let bytes = server.add_file(&name, size);
        {
            let files = server.content.files.lock().unwrap();
            files[&name].sync_all().unwrap();
            rustix::fs::fadvise(&files[&name], 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        let answer = server.connect().await.get(&format!("/files/{name}")).await;
        assert!(answer.body == bytes, "size {size}");
    }
}

/// Requests sent without waiting are answered in order, whatever kinds of bodies follow each other.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::start();
    let big = server.add_file("big", 700_001);
    let small = server.add_file("small", 300);
    let mut client = server.connect().await;
    let paths = ["/files/big", "/files/small", "/bytes", "/files/big", "/empty", "/files/small", "/files/big"];
    let requests = paths
        .map(|path| {
            format!(
                "GET {path} HTTP/1.1
Host: larder

"
            )
        })
        .concat();
    client.stream.write_all(requests.as_bytes()).await.unwrap();
    for path in paths {
        let answer = client.answer().await.unwrap();
        let expected = match path {
            "/files/big" => &big[..],
            "/files/small" => &small[..],
            "/bytes" => b"twelve bytes",
            _ => b"",
        };
        assert!(answer.body == expected, "{path}");
    }
}

/// A slice of a file is that slice.
#[tokio::test]
async fn slices_of_a_file_are_exact() {
    let server = TestServer::start();
    let bytes = server.add_file("f", 1 << 20);
    let mut client = server.connect().await;
    for (start, end) in [(0, 1), (1, 1 << 20), (4097, 300_001), (500_000, 500_000), ((1 << 20) - 5, 1 << 20)] {
        let answer = client.get(&format!("/files/f?{start}-{end}")).await;
        assert!(answer.body == bytes[start..end], "{start}-{end}");
    }
}

/// HEAD tells the length and sends nothing, and the connection goes on.
#[tokio::test]
async fn head_sends_no_body() {
    let server = TestServer::start();
    let bytes = server.add_file("f", 1 << 20);
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send("HEAD", "/files/f").await;
        let head = client.head().await.unwrap();
        assert_eq!(head.header("Content-Length"), Some("1048576"));
    }
    assert!(client.get("/files/f").await.body == bytes);
}

/// A file that grows is sent as far as it may be read; what is held back is not sent before it is released.
#[tokio::test]
async fn growing_file_is_followed_and_its_tail_held_back() {
    let server = TestServer::start();
    let bytes = noise(2_000_000);
    for length in [Some(2_000_000), None] {
        let name = format!("g{}", length.is_some());
        server.add_growing(&name, &bytes, length);
        let mut client = server.connect().await;
        client.send("GET", &format!("/growing/{name}")).await;
        for readable in [1, 5_000, 700_000, 1_999_999] {
            server.set_growing(&name, FillState::Open { length, readable });
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let released = {
            let read = async { while client.fill().await.unwrap() > 0 {} };
            let _ = tokio::time::timeout(Duration::from_millis(300), read).await;
            client.buffer.len()
        };
        assert!((1_999_999..2_001_000).contains(&released), "{released} bytes");
        assert!(!client.buffer.ends_with(b"\r\n0\r\n\r\n"));
        server.set_growing(&name, FillState::Sealed { length: 2_000_000 });
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.header("Content-Length").is_some(), length.is_some());
        assert!(answer.body == bytes);
        assert_eq!(client.get("/bytes").await.body, b"twelve bytes");
    }
}

/// A download that fails, vanishes or ends short never looks like a complete answer, with or without a length.
#[tokio::test]
async fn invariant_4_failed_download_never_ends_cleanly() {
    let server = TestServer::start();
    let bytes = noise(600_000);
    let ends = [FillState::Failed("upstream cut".into()), FillState::Sealed { length: 500_000 }];
    for (number, (length, end)) in
        [Some(600_000), None].into_iter().flat_map(|l| ends.clone().map(|e| (l, e))).enumerate()
    {
        if length.is_none() && matches!(end, FillState::Sealed { .. }) {
            continue;
        }
        let name = format!("g{number}");
        server.add_growing(&name, &bytes, length);
        server.set_growing(&name, FillState::Open { length, readable: 500_000 });
        let mut client = server.connect().await;
        client.send("GET", &format!("/growing/{name}")).await;
        let head = client.head().await.unwrap();
        assert_eq!(head.status, 200);
        server.set_growing(&name, end);
        assert!(!client.is_closed_orderly().await);
        assert!(!client.buffer.ends_with(b"0\r\n\r\n"));
    }
    server.add_growing("vanishing", &bytes, Some(600_000));
    let mut client = server.connect().await;
    client.send("GET", "/growing/vanishing").await;
    server.set_growing("vanishing", FillState::Open { length: Some(600_000), readable: 10 });
    client.head().await.unwrap();
    server.content.growing.lock().unwrap().remove("vanishing");
    assert!(!client.is_closed_orderly().await);
}

/// A file that became shorter ends the connection; no byte of another file fills the gap.
#[tokio::test]
async fn shortened_file_ends_the_connection() {
    let server = TestServer::start();
    server.add_file("f", 1000);
    let mut client = server.connect().await;
    for range in ["0-100000", "0-1500"] {
        client.send("GET", &format!("/files/f?{range}")).await;
        assert!(client.answer().await.is_none());
        client = server.connect().await;
    }
}

/// A slow reader gets every byte, through partial sends of every length.
#[tokio::test]
async fn slow_reader_gets_every_byte() {
    let server = TestServer::start();
    let bytes = server.add_file("f", 8 << 20);
    let mut client = connect_with_small_buffer(&server);
    client.send("GET", "/files/f").await;
    client.head().await.unwrap();
    let mut received = std::mem::take(&mut client.buffer);
    let mut chunk = vec![0; 61_111];
    while received.len() < bytes.len() {
        let read = client.stream.read(&mut chunk).await.unwrap();
        assert!(read > 0);
        received.extend_from_slice(&chunk[..read]);
        if received.len().is_multiple_of(7) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(received == bytes);
}

/// A file which the kernel neither sends by itself nor tells to be in memory is read and sent all the same.
#[tokio::test]
async fn file_without_sendfile_is_copied() {
    let server = TestServer::start();
    let file = File::open("/proc/kallsyms").unwrap();
    let mut expected = vec![0; 100_000];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut expected, 0).unwrap();
    server.content.files.lock().unwrap().insert("proc".to_owned(), Arc::new(file));
    let mut client = server.connect().await;
    for end in [200, 100_000] {
        let answer = client.get(&format!("/files/proc?0-{end}")).await;
        assert!(answer.body == expected[..end]);
    }
}
