//! A DNS server that speaks only the JSON form of DNS over HTTPS, at `/resolve?name=NAME&type=TYPE`.
//!
//! Answers look as those of public resolvers: `{"Status":0,"Answer":[{"name":"a.test.","type":1,"TTL":60,"data":"…"}]}`. A
//! question in the binary form of RFC 8484 is a bad request here, as it is there. It fails for `servfail.test`.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

use super::{Place, Zone};
use crate::harness::Certificate;

/// A running responder; it ends when dropped.
pub(crate) struct JsonServer {
    /// What it was asked, path and query.
    asked: Arc<Mutex<Vec<String>>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl JsonServer {
    /// Starts one on port 443 of both addresses.
    pub(crate) fn start(place: Place<'_>, certificate: &Certificate, zone: &Zone) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let chain = CertificateDer::pem_file_iter(&certificate.certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
        let mut tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        for address in place.addresses() {
            let listener = place.host.inside(|| TcpListener::bind(SocketAddr::new(address, 443)).unwrap());
            listener.set_nonblocking(true).unwrap();
            let _in_runtime = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            runtime.spawn(accept(listener, acceptor.clone(), zone.clone(), Arc::clone(&asked)));
        }
        Self { asked, runtime: Some(runtime) }
    }

    /// Returns what it was asked so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for JsonServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, acceptor: TlsAcceptor, zone: Zone, asked: Arc<Mutex<Vec<String>>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (acceptor, zone, asked) = (acceptor.clone(), zone.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let service = service_fn(|request: Request<Incoming>| {
                asked.lock().unwrap().push(request.uri().path_and_query().map(ToString::to_string).unwrap_or_default());
                let answer = answer(&zone, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let io = TokioIo::new(stream);
            if is_http2 {
                let _ =
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            }
        });
    }
}

fn answer(zone: &Zone, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let plain = |status, text: &'static str| {
        Response::builder().status(status).body(Full::new(Bytes::from_static(text.as_bytes()))).unwrap()
    };
    if request.uri().path() != "/resolve" {
        return plain(StatusCode::NOT_FOUND, "no such page\n");
    }
    let query = request.uri().query().unwrap_or_default();
    let value =
        |name: &str| url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value);
    let (Some(name), kind) = (value("name"), value("type").unwrap_or_else(|| "A".into())) else {
        return plain(StatusCode::BAD_REQUEST, "the name is missing\n");
    };
    let is_v6 = match kind.as_ref() {
        "A" | "1" => false,
        "AAAA" | "28" => true,
        _ => return plain(StatusCode::BAD_REQUEST, "no such type\n"),
    };
    let code = if is_v6 { 28 } else { 1 };
    let name = name.trim_end_matches('.');
    let question = json!([{ "name": format!("{name}."), "type": code }]);
    let body = match zone.find(name, is_v6) {
        None if name == "servfail.test" => json!({ "Status": 2, "Question": question }),
        None => json!({ "Status": 3, "Question": question }),
        Some(addresses) => {
            let answers: Vec<_> = addresses
                .iter()
                .map(|address| json!({ "name": format!("{name}."), "type": code, "TTL": 60, "data": address.to_string() }))
                .collect();
            json!({ "Status": 0, "TC": false, "RD": true, "RA": true, "Question": question, "Answer": answers })
        }
    };
    let body = Full::new(Bytes::from(body.to_string()));
    Response::builder().header("content-type", "application/dns-json; charset=utf-8").body(body).unwrap()
}
