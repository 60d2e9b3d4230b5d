//! Keyboard-interactive authentication (RFC 4256): the server asks, a person answers, and
//! the same questions get the same answers again.

use russh::client::KeyboardInteractiveAuthResponse as Reply;
use zeroize::Zeroizing;

use super::login::{Login, Outcome};
use super::options::SshOptions;
use super::prompter::Question;
use crate::remote::error::{RemoteError, RemoteErrorKind};

/// A server that goes on asking is cut off.
const MAX_ROUNDS: usize = 10;
/// More questions at once are not put to a person.
const MAX_QUESTIONS: usize = 16;

/// One round of questions and what was answered.
pub struct Exchange {
    questions: Vec<Question>,
    answers: Vec<Zeroizing<String>>,
}

/// Words for a password in the prompts of servers that speak the language of their user.
const PASSWORD_WORDS: [&str; 8] =
    ["password", "passwort", "mot de passe", "contrase", "senha", "wachtwoord", "hasło", "пароль"];
/// What makes a question one for something that is good only once.
const ONCE_WORDS: [&str; 5] = ["one-time", "one time", "otp", "code", "token"];

/// Whether the same answers will do again: one secret that reads like a password. Anything
/// else may be a code that is good once, and showing it again may lock the account.
pub fn repeatable(exchanges: &[Exchange], options: &SshOptions) -> bool {
    let questions: Vec<&Question> = exchanges.iter().flat_map(|exchange| &exchange.questions).collect();
    match questions[..] {
        [] => true,
        [question] if question.echo => false,
        [_] if options.password.is_some() => true,
        [question] => {
            let text = question.text.to_lowercase();
            let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
            has(&PASSWORD_WORDS) && !has(&ONCE_WORDS)
        }
        _ => false,
    }
}

impl Login<'_> {
    /// One attempt. Gives the outcome, what was said, and whether the person gave up.
    pub async fn ask_and_answer(&mut self) -> Result<(Outcome, Vec<Exchange>, bool), RemoteError> {
        let mut exchanges = Vec::new();
        let mut given_up = false;
        let mut reply = self.begin().await?;
        for _ in 0..MAX_ROUNDS {
            let (name, instruction, questions) = match reply {
                Reply::InfoRequest { name, instructions, prompts } => {
                    let questions: Vec<Question> = prompts
                        .into_iter()
                        .map(|prompt| Question { text: prompt.prompt, echo: prompt.echo })
                        .collect();
                    (name, instructions, questions)
                }
                done => return Ok((self.done(done).await?, exchanges, given_up)),
            };
            if questions.len() > MAX_QUESTIONS {
                return Err(self.too_many());
            }
            let answers = self.answers(&name, &instruction, &questions).await;
            let answers = match answers {
                Some(answers) if answers.len() == questions.len() => answers,
                // The server waits for an answer before it takes anything else.
                _ => {
                    given_up = true;
                    questions.iter().map(|_| Zeroizing::new(String::new())).collect()
                }
            };
            reply = self.respond(&answers).await?;
            if !questions.is_empty() && !given_up {
                exchanges.push(Exchange { questions, answers });
            }
        }
        Err(self.too_many())
    }

    /// Answers as before, as long as the same is asked.
    pub async fn answer_again(&mut self, exchanges: &[Exchange]) -> Result<Outcome, RemoteError> {
        let mut left = exchanges.iter();
        let mut reply = self.begin().await?;
        for _ in 0..MAX_ROUNDS {
            let prompts = match reply {
                Reply::InfoRequest { prompts, .. } => prompts,
                done => return self.done(done).await,
            };
            let answers = if prompts.is_empty() {
                Vec::new()
            } else {
                let same = left.next().filter(|exchange| {
                    exchange.questions.len() == prompts.len()
                        && exchange
                            .questions
                            .iter()
                            .zip(&prompts)
                            .all(|(known, now)| known.text == now.prompt)
                });
                let Some(exchange) = same else { return Ok(Outcome::Refused) };
                exchange.answers.clone()
            };
            reply = self.respond(&answers).await?;
        }
        Err(self.too_many())
    }

    async fn answers(
        &self,
        name: &str,
        instruction: &str,
        questions: &[Question],
    ) -> Option<Vec<Zeroizing<String>>> {
        if let (Some(password), [question]) = (&self.options.password, questions)
            && !question.echo
        {
            return Some(vec![Zeroizing::new(password.reveal().to_string())]);
        }
        if questions.is_empty() {
            return Some(Vec::new());
        }
        if self.options.batch_mode {
            return None;
        }
        let (host, name, instruction) =
            (self.options.host.clone(), name.to_string(), instruction.to_string());
        let (prompter, questions) = (self.prompter.clone(), questions.to_vec());
        tokio::task::spawn_blocking(move || {
            prompter.keyboard_interactive(&host, &name, &instruction, &questions)
        })
        .await
        .ok()?
    }

    async fn begin(&mut self) -> Result<Reply, RemoteError> {
        let user = self.options.user.clone();
        let begun = self.handle.authenticate_keyboard_interactive_start(user, None);
        match self.link.within(self.options.login_timeout, begun).await {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(_)) => Err(self.cut_off().await),
            None => Err(self.too_slow()),
        }
    }

    async fn respond(&mut self, answers: &[Zeroizing<String>]) -> Result<Reply, RemoteError> {
        let answers = answers.iter().map(|answer| String::clone(answer)).collect();
        let responded = self.handle.authenticate_keyboard_interactive_respond(answers);
        match self.link.within(self.options.login_timeout, responded).await {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(_)) => Err(self.cut_off().await),
            None => Err(self.too_slow()),
        }
    }

    async fn done(&mut self, reply: Reply) -> Result<Outcome, RemoteError> {
        use russh::client::AuthResult;
        let result = match reply {
            Reply::Success => AuthResult::Success,
            Reply::Failure { remaining_methods, partial_success } => {
                AuthResult::Failure { remaining_methods, partial_success }
            }
            // The callers have taken these out.
            Reply::InfoRequest { .. } => return Err(self.too_many()),
        };
        self.settle(Some(Ok(result))).await
    }

    fn too_many(&self) -> RemoteError {
        RemoteError::new(
            RemoteErrorKind::Authentication,
            format!("{}: the server asks too much at login", self.options.host),
        )
    }
}
