//! A verdict: what is the matter, how it is known, what follows, what to do, and whether forgetting is safe.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is the matter.
    Ok,
    /// Worth knowing, nothing suffers.
    Note,
    /// Something suffers, or soon may.
    Warning,
    /// Somebody must look.
    Fault,
}

/// What is the matter with a member, a process or an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// For machines.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// Whom or what it is about.
    pub subject: String,
    /// In words.
    pub verdict: String,
    /// How it is known, each a sentence.
    pub evidence: Vec<String>,
    /// What follows from it.
    pub effect: String,
    /// What to do.
    pub action: String,
    /// Whether its record can be forgotten; none where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forget: Option<Forget>,
}

/// Whether forgetting is safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forget {
    /// It is.
    pub safe: bool,
    /// Why, or why not.
    pub why: String,
}

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// All is well.
    Healthy,
    /// On its way out, as it should be.
    Leaving,
    /// It left.
    Left,
    /// The process is gone; its host says so.
    Dead,
    /// The process is there and does nothing.
    Hangs,
    /// Neither process nor host answers.
    Unreachable,
    /// Its answer is late.
    Suspected,
    /// Declared dead, but its port answers.
    Returning,
    /// Membership never heard of the process that wrote the record.
    Unknown,
    /// UDP does not arrive; TCP does.
    DatagramsBlocked,
    /// It reaches this process, but not the other way round.
    OneWay,
    /// One of two families does not work.
    FamilyDown,
    /// No family in common, and somebody passes messages on.
    Relayed,
    /// No family in common, and nobody passes messages on.
    NoSharedFamily,
    /// Gossip works, the port that others call does not.
    ServiceDead,
    /// The process works, the proxy before it does not.
    ProxyDead,
    /// It says of itself that it does not serve.
    NotServing,
    /// Two processes have one instance id.
    DuplicateId,
    /// Two processes have one member name.
    DuplicateName,
    /// A process of another cluster, met at one of our addresses or its own.
    ForeignLabel,
    /// A process with another gossip key.
    WrongKey,
    /// A name to join cannot be resolved.
    SeedUnresolved,
    /// A name to join leads to nobody.
    SeedStale,
    /// An overdue member is kept, because most of the ring is down as seen from here.
    ForgettingHeld,
    /// Nobody up owns the partition.
    PartitionUnowned,
    /// Its owners are up, and none of them can be asked.
    PartitionUnanswered,
    /// Owners name a partition that is not there.
    PartitionMissing,
    /// The partition's state is locked.
    PartitionLocked,
}

impl Finding {
    pub(crate) fn new(code: Code, severity: Severity, subject: &str, verdict: impl Into<String>) -> Self {
        Self {
            code,
            severity,
            subject: subject.to_owned(),
            verdict: verdict.into(),
            evidence: Vec::new(),
            effect: String::new(),
            action: String::new(),
            forget: None,
        }
    }

    pub(crate) fn evidence(mut self, sentence: impl Into<String>) -> Self {
        self.evidence.push(sentence.into());
        self
    }

    pub(crate) fn effect(mut self, text: impl Into<String>) -> Self {
        self.effect = text.into();
        self
    }

    pub(crate) fn action(mut self, text: impl Into<String>) -> Self {
        self.action = text.into();
        self
    }

    pub(crate) fn forget(mut self, safe: bool, why: impl Into<String>) -> Self {
        self.forget = Some(Forget { safe, why: why.into() });
        self
    }

    /// Whether anything is the matter.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.severity == Severity::Ok
    }
}
