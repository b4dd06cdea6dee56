//! Credentials of Amazon's command line: profiles in `~/.aws/credentials` and `~/.aws/config`
//! (docs.aws.amazon.com/sdkref, "Shared config and credentials files").

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::aws_file::AwsFile;
use super::variable::variable;
use crate::error::{Error, Kind, Result};

/// The time for which a profile is kept: its files may change.
const BELIEVED: Duration = Duration::from_secs(60);
/// The time before their end at which credentials are renewed.
const BEFORE_END: Duration = Duration::from_secs(300);
/// The time that a program that prints credentials may take.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(30);
/// The time between two checks whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A profile, from both files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    name: String,
    key: Option<(String, String, Option<String>)>,
    program: Option<String>,
    unsupported: Option<&'static str>,
    /// The region of its buckets.
    pub(crate) region: Option<String>,
    /// The URL of its service.
    pub(crate) endpoint: Option<String>,
}

fn file(named: &str, name: &str) -> Option<AwsFile> {
    let home = || Some(PathBuf::from(variable("HOME")?).join(".aws").join(name));
    let path = variable(named).map(PathBuf::from).or_else(home)?;
    let text = std::fs::read(path).ok()?;
    Some(AwsFile::parse(&String::from_utf8_lossy(&text)))
}

impl Profile {
    /// Returns the profile that `$AWS_PROFILE` names, or `default`; `None` if it does not exist.
    pub(crate) fn chosen() -> Option<Self> {
        let name = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        let files =
            (file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), file("AWS_CONFIG_FILE", "config"));
        Self::read(&name, files.0.as_ref(), files.1.as_ref())
    }

    fn read(name: &str, credentials: Option<&AwsFile>, config: Option<&AwsFile>) -> Option<Self> {
        let secret = credentials.and_then(|file| file.credentials_of(name));
        let said = config.and_then(|file| file.configuration_of(name));
        if secret.is_none() && said.is_none() {
            return None;
        }
        let get = |key: &str| {
            let found = secret.and_then(|s| s.get(key)).or_else(|| said.and_then(|s| s.get(key)));
            found.cloned()
        };
        let key = get("aws_access_key_id").zip(get("aws_secret_access_key"));
        let unsupported = ["sso_session", "sso_start_url", "role_arn"];
        Some(Self {
            name: name.to_owned(),
            key: key.map(|(id, secret)| (id, secret, get("aws_session_token"))),
            program: get("credential_process"),
            unsupported: unsupported.into_iter().find(|key| get(key).is_some()),
            region: get("region"),
            endpoint: get("endpoint_url"),
        })
    }

    /// Returns whether the profile has credentials, or a way to get them.
    pub(crate) fn has_credentials(&self) -> bool {
        self.key.is_some() || self.program.is_some() || self.unsupported.is_some()
    }

    /// Returns the credentials, and the time for which they may be used.
    fn credentials(&self) -> Result<(AwsCredential, Duration)> {
        if let Some((key_id, secret_key, token)) = self.key.clone() {
            return Ok((AwsCredential { key_id, secret_key, token }, BELIEVED));
        }
        if let Some(program) = &self.program {
            return ask(program);
        }
        let what = match self.unsupported {
            Some(key) => format!("the AWS profile \"{}\" uses {key}", self.name),
            None => format!("the AWS profile \"{}\" has no credentials", self.name),
        };
        Err(Error::new(Kind::Denied, what)
            .hint("`eval \"$(aws configure export-credentials --format env)\"` gives them"))
    }
}

/// The output of a credential process (version 1).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<jiff::Timestamp>,
}

fn ask(program: &str) -> Result<(AwsCredential, Duration)> {
    let failed = |what: &str| Error::new(Kind::Denied, format!("credential_process {what}"));
    let mut child = Command::new("sh")
        .args(["-c", program])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed("cannot be started").because(e))?;
    let deadline = Instant::now() + PROGRAM_DEADLINE;
    while child.try_wait().map_err(|e| failed("cannot be waited for").because(e))?.is_none() {
        if Instant::now() > deadline {
            // The program may just have ended.
            let _ = child.kill();
            return Err(failed("did not end in time"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let output = child.wait_with_output().map_err(|e| failed("cannot be read").because(e))?;
    if !output.status.success() {
        return Err(failed("failed"));
    }
    let printed: Printed = serde_json::from_slice(&output.stdout)
        .map_err(|e| failed("printed no credentials").because(e))?;
    let left = printed.expiration.map(|end| end.duration_since(now()));
    let left = left.map(|left| Duration::try_from(left).unwrap_or_default());
    let lasts = left.map_or(BELIEVED, |left| left.saturating_sub(BEFORE_END));
    let credential = AwsCredential {
        key_id: printed.access_key_id,
        secret_key: printed.secret_access_key,
        token: printed.session_token,
    };
    Ok((credential, lasts))
}

/// Credentials of the chosen profile, read again before they end and when they may have changed.
#[derive(Debug, Default)]
pub(crate) struct ProfileCredentials {
    held: Mutex<Option<(Arc<AwsCredential>, Instant)>>,
}

#[async_trait]
impl CredentialProvider for ProfileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut held = self.held.lock().await;
        if let Some((credential, until)) = &*held
            && Instant::now() < *until
        {
            return Ok(Arc::clone(credential));
        }
        let asked = tokio::task::spawn_blocking(|| match Profile::chosen() {
            Some(profile) => profile.credentials(),
            None => Err(Error::new(Kind::Denied, "the AWS profile is gone")),
        });
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            object_store::Error::Unauthenticated { path: "~/.aws".to_owned(), source }
        };
        let (credential, lasts) =
            asked.await.map_err(|e| failed(e.into()))?.map_err(|e| failed(e.into()))?;
        let credential = Arc::new(credential);
        *held = Some((Arc::clone(&credential), Instant::now() + lasts));
        Ok(credential)
    }
}

#[expect(clippy::disallowed_methods, reason = "credentials end by the clock of this machine")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_make_a_profile_and_the_credentials_file_wins() {
        let credentials = AwsFile::parse(
            "[default]\naws_access_key_id=a\naws_secret_access_key=b\n[x]\naws_access_key_id=c\naws_secret_access_key=d\naws_session_token=e\n",
        );
        let config = AwsFile::parse(
            "[default]\nregion=eu-1\n[profile x]\nregion=us-2\naws_access_key_id=no\nendpoint_url=http://h\n",
        );
        let read = |name| Profile::read(name, Some(&credentials), Some(&config));
        let chosen = read("default").unwrap();
        assert_eq!((chosen.region.as_deref(), chosen.endpoint), (Some("eu-1"), None));
        let x = read("x").unwrap();
        let (found, _) = x.credentials().unwrap();
        assert_eq!((found.key_id.as_str(), found.token.as_deref()), ("c", Some("e")));
        assert_eq!((x.region.as_deref(), x.endpoint.as_deref()), (Some("us-2"), Some("http://h")));
        assert_eq!(read("y"), None);
    }

    #[test]
    fn a_program_prints_credentials_with_an_end() {
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600);
        let printed = format!(
            r#"{{"Version":1,"AccessKeyId":"k","SecretAccessKey":"s","SessionToken":"t","Expiration":"{end}"}}"#
        );
        let config = AwsFile::parse(&format!("[default]\ncredential_process = echo '{printed}'\n"));
        let profile = Profile::read("default", None, Some(&config)).unwrap();
        let (found, lasts) = profile.credentials().unwrap();
        assert_eq!(found.key_id, "k");
        assert!(
            lasts > Duration::from_secs(3200) && lasts <= Duration::from_secs(3300),
            "{lasts:?}"
        );
        let failing = AwsFile::parse("[default]\ncredential_process = false\n");
        let profile = Profile::read("default", None, Some(&failing)).unwrap();
        assert_eq!(profile.credentials().unwrap_err().kind(), Kind::Denied);
    }

    #[test]
    fn what_is_not_supported_says_what_to_do() {
        let config = AwsFile::parse("[default]\nsso_session = corp\n");
        let profile = Profile::read("default", None, Some(&config)).unwrap();
        assert!(profile.has_credentials());
        let error = profile.credentials().unwrap_err();
        assert!(error.message().contains("sso_session"), "{error}");
        assert!(format!("{:?}", error.hints()).contains("export-credentials"));
    }
}
