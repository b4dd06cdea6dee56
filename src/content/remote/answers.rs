//! The responses of stores' servers, noted as they pass. `object_store` gives a status only as
//! text, and fails a whole page of a listing for one key that its paths cannot hold.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::fmt::Write as _;
use std::future::Future;

use async_trait::async_trait;
use http::{StatusCode, Uri};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::path::Path as Key;
use object_store::{ClientOptions, Error as Failure};
use percent_encoding::percent_decode_str;

use crate::error::{Error, Hint, Kind, StoreHint};

/// The maximum length, in characters, of a server's message that is shown.
const WORDS_MAX: usize = 300;
/// The first character of a key that paths cannot hold, in a page of a listing. The rest is the
/// key's bytes in hexadecimal.
const IN_HEX: char = '=';

tokio::task_local! {
    static NOTED: RefCell<Option<Answer>>;
}

/// A response of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    /// The store's code for the error.
    code: String,
    /// The store's message.
    message: String,
    /// The region in which the bucket is.
    region: String,
}

/// Makes one attempt, and notes the response to it for [`to_error`].
pub(crate) async fn noting<T>(attempt: impl Future<Output = T>) -> T {
    NOTED.scope(RefCell::new(None), attempt).await
}

fn note(answer: Option<Answer>) {
    // Outside of an attempt the response is of no use.
    let _ = NOTED.try_with(|noted| noted.replace(answer));
}

/// A connector whose clients note each response.
#[derive(Debug, Default)]
pub(crate) struct Noting;

#[derive(Debug)]
struct NotingClient(HttpClient);

impl HttpConnector for Noting {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(NotingClient(ReqwestConnector::default().connect(options)?)))
    }
}

#[async_trait]
impl HttpService for NotingClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        note(None);
        let (lists, deletes) = (is_listing(request.uri()), is_deletion(request.uri()));
        let (mut parts, body) = self.0.execute(request).await?.into_parts();
        let status = parts.status;
        if status.is_success() {
            note(Some(Answer::of(status, "", "")));
            if !lists && !deletes {
                return Ok(HttpResponse::from_parts(parts, body));
            }
            let page = body.bytes().await?;
            if deletes {
                note(Some(Answer::of(status, &String::from_utf8_lossy(&page), "")));
                return Ok(HttpResponse::from_parts(parts, page.into()));
            }
            parts.headers.remove(http::header::CONTENT_LENGTH);
            let page = match std::str::from_utf8(&page) {
                Ok(text) => with_plain_keys(text).into(),
                Err(_) => page,
            };
            return Ok(HttpResponse::from_parts(parts, page.into()));
        }
        let words = body.bytes().await?;
        let region = parts.headers.get("x-amz-bucket-region").and_then(|v| v.to_str().ok());
        let region = region.unwrap_or_default();
        note(Some(Answer::of(status, &String::from_utf8_lossy(&words), region)));
        Ok(HttpResponse::from_parts(parts, words.into()))
    }
}

fn is_listing(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|pair| ["list-type=2", "comp=list"].contains(&pair))
}

/// Returns whether the response to a request lists its deletions one by one (S3, "DeleteObjects").
fn is_deletion(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|pair| pair.split('=').next() == Some("delete"))
}

/// Returns the text of the first element `tag`, unescaped.
fn element(text: &str, tag: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    let (inner, _) = rest.split_once(&format!("</{tag}>"))?;
    Some(unescaped(inner))
}

/// Returns XML text with its references resolved (XML 1.0, 4.1).
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (name, behind) = after.split_once(';').unwrap_or((after, ""));
        let code = match name.strip_prefix('#') {
            Some(hex) if hex.starts_with('x') => u32::from_str_radix(&hex[1..], 16).ok(),
            Some(decimal) => decimal.parse().ok(),
            None => None,
        };
        match (name, code.and_then(char::from_u32)) {
            (_, Some(c)) => out.push(c),
            ("amp", _) => out.push('&'),
            ("lt", _) => out.push('<'),
            ("gt", _) => out.push('>'),
            ("quot", _) => out.push('"'),
            ("apos", _) => out.push('\''),
            _ => write!(out, "&{name};").expect("a string takes all"),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Returns a page of a listing in which every key is one that paths can hold.
fn with_plain_keys(page: &str) -> String {
    // S3 and Google write <Key>. Azure writes <Name>, which in S3 is the bucket's.
    let tag = if page.contains("<EnumerationResults") { "Name" } else { "Key" };
    let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
    let mut out = String::with_capacity(page.len());
    let mut rest = page;
    while let Some((before, after)) = rest.split_once(&open) {
        // <KeyCount> is no <Key>.
        if !after.starts_with(|c: char| c == '>' || c.is_ascii_whitespace()) {
            out.push_str(before);
            out.push_str(&open);
            rest = after;
            continue;
        }
        let element = after.split_once('>').and_then(|(attributes, inner)| {
            let (inner, behind) = inner.split_once(&close)?;
            Some((attributes, inner, behind))
        });
        let Some((attributes, inner, behind)) = element else { break };
        out.push_str(before);
        // Azure encodes names that XML cannot hold ("List Blobs", since version 2021-02-12).
        let key = match attributes.contains("Encoded=\"true\"") {
            true => percent_decode_str(inner).decode_utf8_lossy().into_owned(),
            false => unescaped(inner),
        };
        let is_plain = Key::parse(&key).is_ok_and(|path| path.as_ref() == key);
        if is_plain && attributes.is_empty() && !key.starts_with(IN_HEX) {
            write!(out, "{open}>{inner}{close}")
        } else {
            let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
            write!(out, "{open}>{IN_HEX}{hex}{close}")
        }
        .expect("a string takes all");
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Returns the key of an object in a page, as it is in the store.
pub(crate) fn key_of(listed: &Key) -> String {
    let listed = listed.as_ref();
    let bytes = listed.strip_prefix(IN_HEX).and_then(|hex| {
        let digits = |at| hex.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
        (0..hex.len()).step_by(2).map(digits).collect::<Option<Vec<u8>>>()
    });
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| listed.to_owned())
}

/// Returns the kind of error for a status that is no success. A status is final, unless it is one
/// that may pass.
pub(crate) fn kind_of(status: StatusCode) -> Kind {
    match status.as_u16() {
        404 | 410 => Kind::NotFound,
        401 | 403 | 407 => Kind::Denied,
        304 | 409 | 412 => Kind::Conflict,
        408 | 425 | 429 => Kind::Unavailable,
        405 | 501 | 505 => Kind::Unsupported,
        507 => Kind::Full,
        500..=599 => Kind::Unavailable,
        _ => Kind::Usage,
    }
}

impl Answer {
    fn of(status: StatusCode, body: &str, region: &str) -> Self {
        let code = element(body, "Code").unwrap_or_default();
        let plain =
            || if body.contains('<') { "" } else { body.lines().next().unwrap_or_default() };
        let message = element(body, "Message").unwrap_or_else(|| plain().to_owned());
        let message = message.lines().next().unwrap_or_default().chars().take(WORDS_MAX).collect();
        let region = Some(region.to_owned()).filter(|region| !region.is_empty());
        let region = region.or_else(|| element(body, "Region")).unwrap_or_default();
        Self { status, code, message, region }
    }

    /// Returns the kind of error. It is `Unavailable` only if a retry in a moment may succeed.
    fn kind(&self) -> Kind {
        match &*self.code {
            "SlowDown"
            | "RequestTimeout"
            | "InternalError"
            | "ServiceUnavailable"
            | "ServerBusy"
            | "OperationAborted"
            | "OperationTimedOut"
            | "ConditionalRequestConflict" => {
                return Kind::Unavailable;
            }
            "AccessDenied" | "ExpiredToken" | "TokenRefreshRequired" => return Kind::Denied,
            "NoSuchBucket" | "ContainerNotFound" => return Kind::Usage,
            // One of many objects was refused.
            _ if self.status.is_success() => return Kind::Unavailable,
            _ => {}
        }
        kind_of(self.status)
    }

    fn hint(&self) -> Option<Hint> {
        let kind = self.kind();
        let hint = match &*self.code {
            "RequestTimeTooSkewed" => {
                "the clock of this machine differs from the store's: set it, then try again"
            }
            "InvalidObjectState" | "BlobArchived" => {
                "it is archived: have the store restore it first"
            }
            "NoSuchBucket" | "ContainerNotFound" => "make the bucket first, or correct its name",
            _ if !self.region.is_empty() && matches!(kind, Kind::Usage) => {
                return Some(StoreHint::Region(self.region.clone()).into());
            }
            _ if self.status.is_redirection() && kind == Kind::Usage => {
                "the store is somewhere else: correct its endpoint, region or URL"
            }
            _ if kind == Kind::Denied => "the credentials are missing, wrong, or have ended",
            _ if kind == Kind::Usage => return Some(StoreHint::Correct.into()),
            _ => return None,
        };
        Some(hint.into())
    }

    /// Builds the error of the response: the store's own words come first.
    fn error(&self, name: &str) -> Error {
        let reason = self.status.canonical_reason().unwrap_or("an unknown status");
        let words = match (&*self.code, &*self.message) {
            ("", "") => reason.to_owned(),
            (one, "") | ("", one) => one.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        let what = format!("{words} ({name} returned {})", self.status.as_u16());
        let error = Error::new(self.kind(), what);
        match self.hint() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// Returns whether a response is complete and malformed: no XML, another document, a header
/// missing.
fn is_unusable(error: &Failure) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<HttpError>().is_some() {
            return false;
        }
        next = error.source();
    }
    error.to_string().contains("Got invalid")
}

/// Builds the error of a request to `name`, whose attempt was made within [`noting`].
pub(crate) fn to_error(name: &str, error: Failure) -> Error {
    if is_untrusted(&error) {
        return Error::new(Kind::Denied, name.to_owned()).because(error).hint(
            "its certificate is not trusted: name a file with that of its authority in SSL_CERT_FILE",
        );
    }
    let noted = NOTED.try_with(RefCell::take).ok().flatten();
    let refused = |answer: &&Answer| !answer.status.is_success() || !answer.code.is_empty();
    if let Some(answer) = noted.as_ref().filter(refused) {
        tracing::debug!("{error}");
        return answer.error(name);
    }
    let kind = match &error {
        Failure::NotFound { .. } => Kind::NotFound,
        Failure::PermissionDenied { .. } | Failure::Unauthenticated { .. } => Kind::Denied,
        Failure::NotSupported { .. } | Failure::NotImplemented { .. } => Kind::Unsupported,
        Failure::InvalidPath { .. } | Failure::UnknownConfigurationKey { .. } => Kind::Usage,
        Failure::AlreadyExists { .. } | Failure::Precondition { .. } => Kind::Conflict,
        _ if noted.is_some() && is_unusable(&error) => {
            return Error::new(Kind::Usage, format!("the response of {name} is malformed"))
                .because(error)
                .hint("is this the store's address? a proxy or a portal may answer in its place");
        }
        _ => Kind::Unavailable,
    };
    let failed = Error::new(kind, name.to_owned()).because(error);
    match kind {
        Kind::Denied => failed.hint("the credentials are missing, wrong, or have ended"),
        _ => failed,
    }
}

/// Returns whether the certificate of the server is not trusted.
pub(crate) fn is_untrusted(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // The error inside an I/O error is not among its sources.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer::of(StatusCode::from_u16(status).unwrap(), body, "")
    }

    #[test]
    fn only_what_may_pass_is_asked_again() {
        let error =
            |code: &str| format!("<Error><Code>{code}</Code><Message>words</Message></Error>");
        for (status, code, kind) in [
            (301, "PermanentRedirect", Kind::Usage),
            (400, "AuthorizationHeaderMalformed", Kind::Usage),
            (400, "ExpiredToken", Kind::Denied),
            (400, "RequestTimeout", Kind::Unavailable),
            (403, "RequestTimeTooSkewed", Kind::Denied),
            (404, "NoSuchKey", Kind::NotFound),
            (404, "NoSuchBucket", Kind::Usage),
            (409, "OperationAborted", Kind::Unavailable),
            (412, "PreconditionFailed", Kind::Conflict),
            (429, "", Kind::Unavailable),
            (501, "NotImplemented", Kind::Unsupported),
            (503, "SlowDown", Kind::Unavailable),
        ] {
            let found = answer(status, &error(code)).error("s3://b");
            assert_eq!(found.kind(), kind, "{status} {code}");
            assert!(found.message().starts_with(if code.is_empty() { "words" } else { code }));
            assert!(found.message().contains(&status.to_string()), "{found}");
        }
        let clock = answer(403, &error("RequestTimeTooSkewed")).error("s3://b");
        assert!(format!("{:?}", clock.hints()).contains("clock"), "{clock:?}");
        let moved = Answer::of(StatusCode::MOVED_PERMANENTLY, "", "eu-west-1").error("s3://b");
        assert_eq!(moved.hints(), [StoreHint::Region("eu-west-1".to_owned()).into()]);
        assert!(moved.message().starts_with("Moved Permanently"), "{moved}");
    }

    #[test]
    fn any_key_comes_through_a_listing() {
        let page = |keys: &[(&str, &str)], tag: &str| -> String {
            let key = |(written, _): &(&str, &str)| format!("<C><{tag}{written}</{tag}></C>");
            keys.iter().map(key).collect()
        };
        let s3 = [
            (">a/b", "a/b"),
            (">a//b", "a//b"),
            (">d/", "d/"),
            (">/x", "/x"),
            (">a/../b", "a/../b"),
            (">t&#x9;b&amp;c", "t\tb&c"),
            (">=61", "=61"),
            (">ü%20 ~", "ü%20 ~"),
        ];
        let azure = [(" Encoded=\"true\">a%EF%BF%BEb", "a\u{fffe}b"), (">c&lt;", "c<")];
        let root = "<EnumerationResults>";
        for (page, tag, keys) in [
            (page(&s3, "Key"), "Key", &s3[..]),
            (root.to_owned() + &page(&azure, "Name"), "Name", &azure[..]),
        ] {
            let (plain, open) = (with_plain_keys(&page), format!("<{tag}>"));
            let listed = plain.split(&open).skip(1);
            let listed = listed.map(|rest| rest.split("</").next().unwrap());
            let found: Vec<_> =
                listed.map(|key| key_of(&Key::parse(unescaped(key)).unwrap())).collect();
            assert_eq!(found, keys.iter().map(|(_, key)| *key).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_element_whose_name_begins_alike_is_no_key() {
        let page = "<ListBucketResult><Name>b</Name><KeyCount>2</KeyCount><Contents><Key>a</Key></Contents>\
                    <Contents><Key>a//b</Key></Contents></ListBucketResult>";
        let plain = with_plain_keys(page);
        assert!(plain.starts_with(
            "<ListBucketResult><Name>b</Name><KeyCount>2</KeyCount><Contents><Key>a</Key></Contents>"
        ));
        assert!(plain.contains(&format!("<Key>{IN_HEX}612f2f62</Key>")), "{plain}");
    }
}
