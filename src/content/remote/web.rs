//! Files on web servers. A response may be anything: another part than was requested, compressed
//! bytes, a redirect to a place that only this machine can reach.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED,
};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use tokio::time::timeout;
use url::{Host, Url};

use super::answers::{is_untrusted, kind_of};
use super::client::FIRST_BYTE;
use super::persist::stalled;
use crate::content::received::Seen;
use crate::error::{Error, Kind, Result};
use crate::model::external::ExternalUrl;

/// The time that a connection to a web server may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(4);
/// The number of redirects followed one after another.
const REDIRECTS: usize = 10;

/// Builds a client of web servers.
pub(crate) fn client() -> Result<reqwest::Client> {
    let redirects = Policy::custom(|attempt| {
        let from = attempt.previous().last();
        if attempt.previous().len() > REDIRECTS {
            return attempt.error("there are too many redirects");
        }
        match from.and_then(|from| why_not(from, attempt.url())) {
            Some(why) => attempt.error(why),
            None => attempt.follow(),
        }
    });
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIME)
        .redirect(redirects)
        .user_agent(concat!("artifactfs/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| Error::new(Kind::Unavailable, "cannot build an HTTP client").because(e))
}

/// Returns why a redirect is not followed, or `None`. It may lead to a place that was not meant
/// when the file was recorded.
fn why_not(from: &Url, to: &Url) -> Option<&'static str> {
    let place = |url: &Url| (url.host_str().map(str::to_owned), url.port_or_known_default());
    match to.scheme() {
        "https" => {}
        "http" if from.scheme() == "http" => {}
        "http" => return Some("a redirect leads from https to http"),
        _ => return Some("a redirect leads to no web server"),
    }
    (is_near(to) && place(from) != place(to))
        .then_some("a redirect leads to a service that only this machine can reach")
}

/// Returns whether a URL names this machine, or an address of its link (RFC 3927), where clouds
/// hand out credentials.
fn is_near(url: &Url) -> bool {
    let address = match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            return name == "localhost" || name.ends_with(".localhost");
        }
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => {
            address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
        }
        None => return false,
    };
    let of_the_link = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    address.is_loopback() || address.is_unspecified() || of_the_link
}

/// Refuses a response that holds another part than was requested.
pub(crate) fn refuse_other_part(
    url: &ExternalUrl,
    answer: &Response,
    wanted: &Range<u64>,
) -> Result<()> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(());
    }
    let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let range = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-'));
    let first = range.and_then(|(first, _)| first.trim().parse::<u64>().ok());
    if first == Some(wanted.start) {
        return Ok(());
    }
    let what = format!("{url} returned another part of the file than was requested");
    Err(Error::new(Kind::Unsupported, what).hint("its server, or a proxy before it, is broken"))
}

/// Builds the error of a file that is sent compressed.
pub(crate) fn compressed(url: &ExternalUrl, encoding: &str) -> Error {
    let what = format!("{url} is sent compressed ({encoding}), though plain bytes were requested");
    Error::new(Kind::Unsupported, what).hint("fetch it, and put the file itself")
}

/// Begins a request for plain bytes.
pub(crate) fn request(
    client: &reqwest::Client,
    method: Method,
    url: &ExternalUrl,
) -> RequestBuilder {
    client.request(method, url.as_str()).header(ACCEPT_ENCODING, "identity")
}

/// Sends a request, and waits [`FIRST_BYTE`] for the response to begin.
pub(crate) async fn send(request: RequestBuilder, url: &ExternalUrl) -> Result<Response> {
    let answer = timeout(FIRST_BYTE, request.send()).await.map_err(|_| stalled(url.as_str()))?;
    answer.map_err(|e| web_failed(url.as_str(), e))
}

fn web_failed(name: &str, error: reqwest::Error) -> Error {
    let untrusted = is_untrusted(&error);
    let kind = match () {
        () if untrusted => Kind::Denied,
        () if error.is_redirect() => Kind::Usage,
        () => Kind::Unavailable,
    };
    // Redirects may lead to URLs that grant access: the error names only the recorded one.
    let failed = Error::new(kind, name.to_owned()).because(error.without_url());
    if untrusted {
        return failed.hint(
            "its certificate is not trusted: name a file with that of its authority in SSL_CERT_FILE",
        );
    }
    failed
}

/// Returns the metadata of a file from the head of a response; `length` is that of the body.
pub(crate) fn seen_by(
    url: &ExternalUrl,
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Result<Seen> {
    let text = |name: HeaderName| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    let kind = match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => None,
        _ => Some(kind_of(status)),
    };
    if status.is_redirection() {
        let what = format!("{url}: {status}, a redirect that leads to no web server");
        return Err(Error::new(Kind::Usage, what).hint("give the URL that it leads to"));
    }
    if let Some(kind) = kind {
        return Err(Error::new(kind, format!("{url}: {status}")));
    }
    let whole = match status {
        StatusCode::PARTIAL_CONTENT => {
            text(CONTENT_RANGE).rsplit_once('/').and_then(|(_, whole)| whole.parse().ok())
        }
        _ => length,
    };
    let size_bytes = whole
        .ok_or_else(|| Error::new(Kind::Unsupported, format!("{url} is sent without a length")))?;
    let [etag, modified, encoding] =
        [ETAG, LAST_MODIFIED, CONTENT_ENCODING].map(|name| text(name).to_owned());
    let encoding = if encoding == "identity" { String::new() } else { encoding };
    Ok(Seen { size_bytes, etag, version: String::new(), modified, encoding })
}

/// Returns the body of a response as it arrives, without its first `skip` bytes, and at most
/// `length` bytes of the rest.
pub(crate) fn part_of_body(
    answer: Response,
    skip: u64,
    length: u64,
    name: String,
) -> impl Stream<Item = Result<Bytes>> {
    try_unfold((answer, skip, length), move |(mut answer, mut skip, left)| {
        let name = name.clone();
        async move {
            loop {
                if left == 0 {
                    return Ok(None);
                }
                let part = answer.chunk().await.map_err(|e| web_failed(&name, e))?;
                let Some(mut part) = part else { return Ok(None) };
                let passed = (part.len() as u64).min(skip);
                skip -= passed;
                part = part.slice(passed as usize..);
                part.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                if !part.is_empty() {
                    let left = left - part.len() as u64;
                    return Ok(Some((part, (answer, skip, left))));
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_do_not_lead_near() {
        for (from, to, followed) in [
            ("https://h/x", "https://cdn/x", true),
            ("http://h/x", "https://h/x", true),
            ("http://h/x", "http://other/x", true),
            ("https://h/x", "http://h/x", false),
            ("https://h/x", "https://127.0.0.1/x", false),
            ("http://h/x", "http://localhost:8080/x", false),
            ("http://h/x", "http://[::1]/x", false),
            ("http://h/x", "http://[::ffff:127.0.0.1]/x", false),
            ("http://h/x", "http://169.254.169.254/latest", false),
            ("http://h/x", "http://0.0.0.0/x", false),
            ("http://127.0.0.1:1/x", "http://127.0.0.1:1/y", true),
            ("http://127.0.0.1:1/x", "http://127.0.0.1:2/y", false),
            ("https://h/x", "file:///etc/passwd", false),
        ] {
            let [from, to] = [from, to].map(|url| Url::parse(url).unwrap());
            assert_eq!(why_not(&from, &to).is_none(), followed, "{from} to {to}");
        }
    }
}
