//! Why nobody got in: what was tried, and what the server would take.

use std::time::Duration;

use russh::MethodKind;

use super::login::{self, Login};
use super::options::Authentication;
use crate::model::escape::printable;
use crate::remote::error::{RemoteError, RemoteErrorKind};

/// How long the end of a connection may take to be known once it shows.
const ENDING_LIMIT: Duration = Duration::from_secs(2);

impl Login<'_> {
    pub fn too_slow(&self) -> RemoteError {
        RemoteError::new(
            RemoteErrorKind::Unreachable,
            format!(
                "{}: no answer within {:.1} s at login (tried: {})",
                self.options.host,
                self.options.login_timeout.as_secs_f32(),
                self.tried()
            ),
        )
    }

    /// The connection ended while logging in.
    pub async fn cut_off(&self) -> RemoteError {
        let ending = tokio::time::timeout(ENDING_LIMIT, self.link.ended()).await.ok();
        let (kind, reason) = match ending {
            // A server that says goodbye at this stage means our attempts.
            Some(ending) if ending.by_message => (RemoteErrorKind::Authentication, ending.reason),
            Some(ending) => (RemoteErrorKind::Unreachable, ending.reason),
            None => (RemoteErrorKind::Authentication, "the server takes no method at all".to_string()),
        };
        RemoteError::new(
            kind,
            format!(
                "{}: login as {} failed: {reason} (tried: {})",
                self.options.host,
                printable(self.options.user.as_bytes()),
                self.tried()
            ),
        )
    }

    pub fn refused(&self) -> RemoteError {
        let methods: Vec<String> = self.methods.iter().map(|method| self.method_in_words(method)).collect();
        RemoteError::new(
            RemoteErrorKind::Authentication,
            format!(
                "{}: no way in as {}: tried {}; the server would take: {}",
                self.options.host,
                printable(self.options.user.as_bytes()),
                self.tried(),
                methods.join(", ")
            ),
        )
    }

    /// What the server would take, and why it was not given where nothing was tried.
    fn method_in_words(&self, method: &MethodKind) -> String {
        let name = <&str>::from(method);
        let ours = Authentication::ALL.into_iter().find(|ours| login::kind(*ours) == *method);
        match ours {
            None => format!("{name} (which haul does not have)"),
            Some(ours) if !self.options.authentications.contains(&ours) => {
                format!("{name} (switched off here)")
            }
            Some(Authentication::Password | Authentication::KeyboardInteractive) if !self.can_answer() => {
                format!("{name} (nobody may be asked)")
            }
            Some(_) => name.to_string(),
        }
    }

    fn tried(&self) -> String {
        if self.tried.is_empty() { "nothing".to_string() } else { self.tried.join(", ") }
    }
}
