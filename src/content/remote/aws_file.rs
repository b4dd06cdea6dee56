//! The files of Amazon's command line, as `aws` reads them (docs.aws.amazon.com/sdkref, "Shared
//! config and credentials files").
//!
//! ```text
//! [default]                 a section; `[profile x]`, `[profile "x y"]` in the configuration
//! # a comment               a line that begins with # or ;
//! region = eu-west-1        a value, up to the end of the line: # and ; have no meaning there
//! s3 =
//!   max_queue_size = 10     a line that begins with a space belongs to the value above
//! ```

use std::collections::BTreeMap;

/// The values of a profile; keys are in small letters.
pub(crate) type Section = BTreeMap<String, String>;

/// A file of profiles.
#[derive(Debug, Default)]
pub(crate) struct AwsFile(BTreeMap<String, Section>);

impl AwsFile {
    /// Parses a file. It skips lines that it does not support, since other programs may have
    /// written them.
    pub(crate) fn parse(text: &str) -> Self {
        let mut sections: BTreeMap<String, Section> = BTreeMap::new();
        let mut section = None;
        for line in text.lines() {
            let begins_with_space = line.starts_with([' ', '\t']);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) || begins_with_space {
                continue;
            }
            if let Some((name, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                section = Some(sections.entry(name.trim().to_owned()).or_default());
            } else if let (Some(section), Some((key, value))) = (&mut section, line.split_once('='))
            {
                section.insert(key.trim().to_lowercase(), value.trim().to_owned());
            }
        }
        Self(sections)
    }

    /// Returns a profile of the credentials file, in which a section has the profile's name alone.
    pub(crate) fn credentials_of(&self, profile: &str) -> Option<&Section> {
        self.0.get(profile)
    }

    /// Returns a profile of the configuration file. `[profile default]` takes precedence over
    /// `[default]`.
    pub(crate) fn configuration_of(&self, profile: &str) -> Option<&Section> {
        let named = self.0.iter().find(|(name, _)| {
            let rest = name.strip_prefix("profile").filter(|rest| rest.starts_with([' ', '\t']));
            rest.is_some_and(|rest| unquoted(rest.trim()) == profile)
        });
        let plain = || self.0.get(profile).filter(|_| profile == "default");
        named.map(|(_, section)| section).or_else(plain)
    }
}

fn unquoted(name: &str) -> &str {
    let inside = |quote| name.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(section: Option<&'a Section>, key: &str) -> Option<&'a str> {
        section?.get(key).map(String::as_str)
    }

    #[test]
    fn sections_comments_and_values_are_told_apart() {
        let file = AwsFile::parse(
            "# of mine\nlost = 1\n[default]\r\nRegion=eu-1\r\n; region = no\n\n[profile a]\nkey = a\\tb\"c\"\nnothing\n\
             credential_process = p --x='a=b' ; q # r\n[ profile   b ] # other\nregion\t=\tx\n",
        );
        let default = file.configuration_of("default");
        assert_eq!(value(default, "region"), Some("eu-1"));
        assert_eq!(value(default, "lost"), None);
        let a = file.configuration_of("a");
        assert_eq!(value(a, "credential_process"), Some("p --x='a=b' ; q # r"));
        assert_eq!(value(a, "key"), Some("a\\tb\"c\""));
        assert_eq!(value(file.configuration_of("b"), "region"), Some("x"));
        assert!(file.configuration_of("c").is_none());
    }

    #[test]
    fn what_is_indented_belongs_to_the_value_above() {
        let file = AwsFile::parse(
            "[default]\ns3 =\n  region = no\n\tendpoint_url = no\nregion = yes\n[default]\noutput = json\n",
        );
        let default = file.configuration_of("default");
        assert_eq!(value(default, "s3"), Some(""));
        assert_eq!(value(default, "region"), Some("yes"));
        assert_eq!(value(default, "endpoint_url"), None);
        assert_eq!(value(default, "output"), Some("json"), "a section that comes twice is one");
    }

    #[test]
    fn a_profile_has_its_own_name_in_each_of_the_files() {
        let file = AwsFile::parse(
            "[x]\nregion = 1\n[profile x]\nregion = 2\n[profile \"y z\"]\nregion = 3\n[profile default]\nregion = 4\n\
             [default]\nregion = 5\n[profilex]\nregion = 6\n",
        );
        assert_eq!(value(file.credentials_of("x"), "region"), Some("1"));
        assert_eq!(value(file.configuration_of("x"), "region"), Some("2"));
        assert_eq!(value(file.configuration_of("y z"), "region"), Some("3"));
        assert_eq!(value(file.configuration_of("default"), "region"), Some("4"));
        assert!(file.credentials_of("y z").is_none());
        assert_eq!(AwsFile::parse("").configuration_of("default"), None);
    }
}
