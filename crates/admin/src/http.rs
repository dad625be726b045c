//! What is served over HTTP: metrics, health, and one page with the numbers that it shows.
//!
//! Everything can only be looked at. Nobody logs in: who may see it is for the address to say that it listens on. Everything a
//! client can make the proxy keep has a limit, and a connection has a longest life, so that slow ones cannot fill the table.
//!
//! It runs on the console's thread, which serves no client of the data path; a picture is shared by all requests of half a
//! second, so that many of them ask the workers no more than one does.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use pgweir_metrics::exposition::{Format, write};
use tokio::net::{TcpListener, TcpStream};

use crate::control::Control;
use crate::exposition;

mod host;
mod overview;
mod pictures;
mod places;
mod ready;

use pictures::Pictures;
use places::{Place, Places};

/// Connections at once; for a further one goes who has waited longest without a whole request.
///
/// Chosen: a browser opens six, a scraper one, a load balancer's checks a few. Not larger, because each may hold a buffer and an
/// answer.
const CONNECTIONS_LIMIT: usize = 64;

/// How long a connection may take to send the head of a request, waiting for the next one included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection lives. Chosen: a page that polls reconnects once a minute, which costs nothing.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(60);

/// How long the answer under way may take when that is over.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest head of a request, in bytes. Not below 8192, hyper's least.
const HEAD_BYTES_LIMIT: usize = 16 * 1024;

/// Header fields of a request.
const HEADERS_LIMIT: usize = 64;

/// Pause after a failure to accept, which is most often a want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What a browser may do with the page: run its own scripts and styles, and ask where it comes from.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// Serves until it is dropped, and all its connections with it.
///
/// # Cancel safety
/// Dropping it closes the listener and every connection, answers under way included.
pub async fn serve(listener: TcpListener, control: Arc<dyn Control>) {
    let site = Arc::new(Pictures::new(control));
    let mut places = Places::new(CONNECTIONS_LIMIT);
    loop {
        tokio::select! {
            () = places.ended() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    places.make_room().await;
                    let site = Arc::clone(&site);
                    places.take(|place| connection(stream, site, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting on the HTTP listener");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, site: Arc<Pictures>, place: Place) {
    let service = service_fn(move |request| {
        let (site, answering) = (Arc::clone(&site), place.answering());
        async move {
            let answer = answer(&request, &site).await;
            drop(answering);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_LIMIT)
        .max_buf_size(HEAD_BYTES_LIMIT);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // How a connection ends matters to nobody here: what the client did wrong hyper has told it.
    let ended = tokio::time::timeout(CONNECTION_LIFETIME, connection.as_mut()).await;
    if ended.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(LAST_ANSWER_TIMEOUT, connection).await;
    }
}

async fn answer(request: &Request<Incoming>, site: &Pictures) -> Answer {
    let mut answer = if *request.method() != Method::GET && *request.method() != Method::HEAD {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(header::ALLOW, allowed);
        answer
    } else if !request.body().is_end_stream() {
        // It is not read, so that what follows it cannot be either.
        let mut answer = plain(StatusCode::PAYLOAD_TOO_LARGE, "no body is taken\n");
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
        answer
    } else {
        resource(request, site).await
    };
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        let value = HeaderValue::from_static(value);
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// Returns whether a browser may show the answer to the page that asks. What probes and scrapers read shows nothing that is
/// worth the trouble, and they come by all kinds of names.
async fn is_asked_by_our_name(request: &Request<Incoming>, site: &Pictures) -> bool {
    if matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics") {
        return true;
    }
    let Some(host) = request.headers().get(header::HOST) else {
        // No browser leaves it out.
        return true;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    if host::is_ours(host, None) {
        return true;
    }
    let facts = site.plain().await;
    let listen = facts
        .as_ref()
        .and_then(|facts| facts.config.http.listen.as_ref());
    host::is_ours(host, listen.map(|(host, _)| &**host))
}

async fn resource(request: &Request<Incoming>, site: &Pictures) -> Answer {
    if !is_asked_by_our_name(request, site).await {
        return plain(
            StatusCode::MISDIRECTED_REQUEST,
            "this name may be anybody's: ask by the IP address, by a name without a dot, or by the one in http.listen\n",
        );
    }
    match request.uri().path() {
        "/" | "/index.html" => found(HTML, include_str!("page/index.html")),
        "/page.css" => found(CSS, include_str!("page/page.css")),
        "/page.js" => found(JAVASCRIPT, include_str!("page/page.js")),
        "/charts.js" => found(JAVASCRIPT, include_str!("page/charts.js")),
        "/icon.svg" => found(SVG, include_str!("page/icon.svg")),
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/metrics" => metrics(request, site).await,
        "/readyz" => match site.plain().await {
            Some(facts) => {
                let ready = ready::readiness(&facts);
                let status = if ready.is_ready {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                json(status, &ready)
            }
            None => late(),
        },
        "/api/overview.json" => match site.plain().await {
            Some(facts) => json(StatusCode::OK, &overview::overview(&facts)),
            None => late(),
        },
        "/api/details.json" => match site.detailed().await {
            Some(facts) => json(StatusCode::OK, &overview::details(&facts)),
            None => late(),
        },
        _ => plain(
            StatusCode::NOT_FOUND,
            "there are /, /metrics, /healthz and /readyz\n",
        ),
    }
}

async fn metrics(request: &Request<Incoming>, site: &Pictures) -> Answer {
    let Some(facts) = site.plain().await else {
        return late();
    };
    let accept = request.headers().get(header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or("");
    let format = Format::negotiate(accept);
    let text = write(&exposition::families(&facts), format);
    typed(StatusCode::OK, format.content_type(), text.into())
}

/// The workers have not shown what they count in time.
fn late() -> Answer {
    plain(
        StatusCode::SERVICE_UNAVAILABLE,
        "the proxy did not answer in time\n",
    )
}

fn json<T: serde::Serialize>(status: StatusCode, value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => typed(status, JSON, text.into()),
        Err(error) => {
            tracing::error!(%error, "an answer over HTTP cannot be written as JSON");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "this is a bug\n")
        }
    }
}

fn found(kind: &'static str, text: &'static str) -> Answer {
    typed(StatusCode::OK, kind, Bytes::from_static(text.as_bytes()))
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    typed(status, TEXT, Bytes::from_static(text.as_bytes()))
}

fn typed(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
