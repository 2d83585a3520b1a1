//! The listener: three pages, few connections, none of them for long.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Telemetry;
use super::health::Readiness;
use super::series::{self, Format};

/// Listens from now on; a successor may take the port at once when this process ends.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Answers until the runtime ends.
pub(super) async fn serve(listener: TcpListener, telemetry: Telemetry) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Who finds no place waits in the kernel's queue, which is bounded too.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(attend(stream, telemetry.clone(), place));
            }
            Err(error) => {
                tracing::warn!(%error, "A connection to the metrics could not be taken.");
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
    }
}

async fn attend(stream: TcpStream, telemetry: Telemetry, _place: OwnedSemaphorePermit) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri(), &request, &telemetry);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    // A client that goes away, dawdles or talks nonsense is its own affair.
    let _ = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
}

fn respond(
    method: &Method,
    uri: &hyper::Uri,
    request: &Request<Incoming>,
    telemetry: &Telemetry,
) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refusal
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match uri.path() {
        "/metrics" => metrics(request, telemetry),
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" => ready(uri.query(), telemetry),
        "/" => plain(StatusCode::OK, INDEX),
        _ => plain(StatusCode::NOT_FOUND, INDEX),
    }
}

fn metrics(request: &Request<Incoming>, telemetry: &Telemetry) -> Response<Full<Bytes>> {
    let accept = request
        .headers()
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept);
    match series::encode(telemetry, format) {
        Ok(written) => answer(StatusCode::OK, format.content_type(), written),
        Err(_) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics cannot be encoded\n",
        ),
    }
}

fn ready(query: Option<&str>, telemetry: &Telemetry) -> Response<Full<Bytes>> {
    let Readiness { is_ready, text } = telemetry.read(Readiness::of);
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let wants_all =
        query.is_some_and(|query| query.split('&').any(|one| one.starts_with("verbose")));
    // Who waits for readiness wants to know why not, asked for or not.
    if wants_all || !is_ready {
        answer(status, TEXT, text)
    } else {
        plain(status, "ready\n")
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    answer(status, TEXT, text)
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

const TEXT: &str = "text/plain; charset=utf-8";
const INDEX: &str = "/metrics\n/healthz\n/readyz\n/readyz?verbose\n";
/// Scrapers, probes and curious people at the same time.
const MAX_CONNECTIONS: usize = 32;
const MAX_HEADER_BYTES: usize = 16 << 10;
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// A scraper connects again; whoever reads slowly on purpose holds a place no longer than this.
const CONNECTION_LIMIT: Duration = Duration::from_mins(2);
const AFTER_ERROR: Duration = Duration::from_millis(100);
