//! Whether the server is the right one: reads known_hosts files, asks a person, and
//! writes down what was accepted. What lines mean is `known_hosts`' business.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use russh::keys::ssh_key::Certificate;

use super::algorithms::Known;
use super::certificate;
use super::known_hosts::{self, Authority, HostKey, KnownKey, Verdict};
use super::options::{DEFAULT_PORT, SshOptions, StrictHostKeyChecking};
use super::prompter::Prompter;
use super::restrictions::{self, Restrictions};
use crate::model::escape::printable;
use crate::remote::error::{RemoteError, RemoteErrorKind};

/// A known_hosts file larger than this is refused and not read.
const MAX_KNOWN_HOSTS_BYTES: u64 = 64 * 1024 * 1024;

/// The known_hosts files of one host, read once.
#[derive(Debug, Clone)]
pub struct HostTrust {
    host: String,
    name: String,
    name_without_port: Option<String>,
    /// What a certificate has to be for.
    principal: String,
    paths: Vec<PathBuf>,
    texts: Vec<Vec<u8>>,
    restrictions: Restrictions,
    checking: StrictHostKeyChecking,
    batch_mode: bool,
    /// Where a new key goes.
    writable: Option<PathBuf>,
    hashed: bool,
}

impl HostTrust {
    /// Reads the files. One that is not there is empty; one that cannot be read could
    /// revoke the key, so that is an error.
    pub fn read(options: &SshOptions) -> Result<HostTrust, RemoteError> {
        let paths: Vec<PathBuf> =
            options.user_known_hosts.iter().chain(&options.global_known_hosts).cloned().collect();
        let mut texts = Vec::with_capacity(paths.len());
        for path in &paths {
            let text = read_file(path).map_err(|error| {
                refused(format!("{}: cannot read the known hosts in {}: {error}", options.host, show(path)))
            })?;
            texts.push(text);
        }
        let mut paths = paths;
        if let Some(path) = &options.revoked_host_keys {
            texts.push(restrictions::revoked_lines(path).map_err(|error| {
                refused(format!("{}: cannot read the revoked keys in {}: {error}", options.host, show(path)))
            })?);
            paths.push(path.clone());
        }
        let (name, name_without_port) = match &options.host_key_alias {
            Some(alias) => (alias.to_ascii_lowercase(), None),
            None => (
                known_hosts::lookup_name(&options.address, options.port),
                (options.port != DEFAULT_PORT)
                    .then(|| known_hosts::lookup_name(&options.address, DEFAULT_PORT)),
            ),
        };
        Ok(HostTrust {
            host: options.host.clone(),
            name,
            name_without_port,
            principal: options.host_key_alias.as_ref().unwrap_or(&options.address).to_ascii_lowercase(),
            paths,
            texts,
            restrictions: Restrictions::of(options),
            checking: options.strict_host_key_checking,
            batch_mode: options.batch_mode,
            writable: options.user_known_hosts.first().cloned(),
            hashed: options.hash_known_hosts,
        })
    }

    /// What the files say of this host before it is asked.
    pub fn known(&self) -> Known {
        Known {
            types: known_hosts::known_types(&self.texts, &self.name),
            certificates: self.names().any(|name| known_hosts::speaks_of_certificates(&self.texts, name)),
        }
    }

    /// The names to look up, as ssh has it: what is known for a host holds for its other
    /// ports too.
    fn names(&self) -> impl Iterator<Item = &str> {
        [Some(self.name.as_str()), self.name_without_port.as_deref()].into_iter().flatten()
    }

    /// Says yes or why not. May ask a person, so it blocks. A key that was accepted anew
    /// is written down before this returns; where that fails the person is told and the
    /// key holds for this run.
    ///
    /// As ssh has it, a certificate that nobody trusted vouches for, or that does not hold,
    /// leaves the plain key to be judged.
    pub fn check(
        &self,
        key: &HostKey,
        certificate: Option<&Certificate>,
        prompter: &dyn Prompter,
    ) -> Result<(), RemoteError> {
        if let Err(why) = self.restrictions.check_key(key) {
            return Err(refused(format!(
                "{}: the host key {} {} {why}",
                self.host,
                key.key_type(),
                key.fingerprint()
            )));
        }
        if let Some(certificate) = certificate {
            match self.check_certificate(key, certificate)? {
                Ok(()) => return Ok(()),
                Err(why) => prompter.tell(&format!(
                    "{}: the host certificate does not hold ({why}); its plain key is judged instead",
                    self.host
                )),
            }
        }
        self.check_key(key, prompter)
    }

    /// The outer error refuses the host; the inner one says why the certificate is as good
    /// as none.
    fn check_certificate(
        &self,
        key: &HostKey,
        certificate: &Certificate,
    ) -> Result<Result<(), String>, RemoteError> {
        let Some(authority) = certificate::authority(certificate) else {
            return Ok(Err("its authority cannot be read".to_string()));
        };
        let mut trusted = false;
        for name in self.names() {
            match known_hosts::judge_authority(&self.texts, name, &authority, key) {
                Authority::Trusted => trusted = true,
                Authority::Unknown => {}
                Authority::Revoked(by) => {
                    return Err(refused(format!(
                        "{}: the host certificate, or the authority {} {} that signed it, is revoked by {}; \
                         do not connect until the host has another",
                        self.host,
                        authority.key_type(),
                        authority.fingerprint(),
                        self.place(&by)
                    )));
                }
            }
        }
        if !trusted {
            return Ok(Err(format!(
                "no @cert-authority line names {} {}",
                authority.key_type(),
                authority.fingerprint()
            )));
        }
        let now = SystemTime::now();
        Ok(certificate::holds(certificate, &self.principal, now)
            .and_then(|()| self.restrictions.check_signature(certificate)))
    }

    fn check_key(&self, key: &HostKey, prompter: &dyn Prompter) -> Result<(), RemoteError> {
        let host = &self.host;
        let (key_type, fingerprint) = (key.key_type(), key.fingerprint());
        let mut verdict = known_hosts::judge(&self.texts, &self.name, key);
        if let (Verdict::Unknown, Some(name)) = (&verdict, &self.name_without_port) {
            // As ssh has it: a key known for the host holds for its other ports too, while
            // another key says nothing about them.
            match known_hosts::judge(&self.texts, name, key) {
                without_port @ (Verdict::Trusted | Verdict::Revoked(_)) => verdict = without_port,
                Verdict::Changed(_) | Verdict::OtherTypes(_) | Verdict::Unknown => {}
            }
        }
        match verdict {
            Verdict::Trusted => return Ok(()),
            Verdict::Revoked(by) => {
                return Err(refused(format!(
                    "{host}: the host key {key_type} {fingerprint} is revoked by {}; do not connect until \
                     the host has another key",
                    self.place(&by)
                )));
            }
            Verdict::Changed(known) | Verdict::OtherTypes(known) => {
                return Err(refused(format!(
                    "{host}: the host key has changed: the server shows {key_type} {fingerprint}, known is \
                     {} {} ({}); somebody may be between you and the host. If the change is genuine, remove \
                     the old key with: ssh-keygen -R '{}' -f {}",
                    printable(known.key.key_type().as_bytes()),
                    known.key.fingerprint(),
                    self.place(&known),
                    printable(self.name.as_bytes()),
                    self.paths.get(known.file).map(|path| show(path)).unwrap_or_default(),
                )));
            }
            Verdict::Unknown => {}
        }
        match self.checking {
            StrictHostKeyChecking::AcceptNew => {}
            StrictHostKeyChecking::Ask if !self.batch_mode => {
                if !prompter.accept_host_key(host, &fingerprint, key_type) {
                    return Err(self.unknown(key, "nobody accepted it"));
                }
            }
            StrictHostKeyChecking::Yes | StrictHostKeyChecking::Ask => {
                return Err(self.unknown(key, "only known keys are trusted"));
            }
        }
        self.remember(key, prompter);
        Ok(())
    }

    fn unknown(&self, key: &HostKey, why: &str) -> RemoteError {
        let files: Vec<String> = self.paths.iter().map(|path| show(path)).collect();
        refused(format!(
            "{}: the host key {} {} is unknown ({why}); '{}' is not in {}. Check the fingerprint, then add \
             the key, or connect with -o StrictHostKeyChecking=ask or accept-new",
            self.host,
            key.key_type(),
            key.fingerprint(),
            printable(self.name.as_bytes()),
            if files.is_empty() { "any known_hosts file".to_string() } else { files.join(", ") }
        ))
    }

    fn place(&self, known: &KnownKey) -> String {
        let path = self.paths.get(known.file).map(|path| show(path)).unwrap_or_default();
        format!("{path}:{}", known.line)
    }

    fn remember(&self, key: &HostKey, prompter: &dyn Prompter) {
        let host = &self.host;
        let Some(path) = &self.writable else { return };
        let written = self.new_line(key).and_then(|line| append_line(path, &line));
        match written {
            Ok(()) => prompter.tell(&format!(
                "{host}: added the host key {} {} to {}",
                key.key_type(),
                key.fingerprint(),
                show(path)
            )),
            Err(error) => {
                prompter.tell(&format!("{host}: the host key could not be added to {}: {error}", show(path)));
            }
        }
    }

    fn new_line(&self, key: &HostKey) -> io::Result<String> {
        let salt = if self.hashed {
            let mut salt = [0; 20];
            getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
            Some(salt)
        } else {
            None
        };
        known_hosts::new_line(&self.name, key, salt)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the host's name cannot stand in it"))
    }
}

/// The error when a later connection meets another key than the first one did.
pub fn not_the_same_key(host: &str, first: &HostKey, now: &HostKey) -> RemoteError {
    refused(format!(
        "{host}: another connection to the same host shows another host key: first {} {}, now {} {}; is \
         there more than one machine behind this name?",
        first.key_type(),
        first.fingerprint(),
        now.key_type(),
        now.fingerprint()
    ))
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MAX_KNOWN_HOSTS_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_KNOWN_HOSTS_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 64 MiB"));
    }
    Ok(text)
}

/// One write at the end of the file, so that lines of two runs do not mix.
fn append_line(path: &Path, line: &str) -> io::Result<()> {
    if let Some(directory) = path.parent()
        && !directory.as_os_str().is_empty()
        && !directory.exists()
    {
        fs::DirBuilder::new().mode(0o700).create(directory)?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut text = String::with_capacity(line.len() + 1);
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            text.push('\n');
        }
    }
    text.push_str(line);
    file.write_all(text.as_bytes())
}

fn refused(message: String) -> RemoteError {
    RemoteError::new(RemoteErrorKind::HostKey, message)
}

fn show(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}
