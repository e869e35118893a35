//! The settings of a topic that this broker knows. Others are refused, because a setting without effect would be a lie.

use serde::{Deserialize, Serialize};

use crate::code;
use crate::topics::TopicError;

/// What was set when the topic was made; `None` leaves it to the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicSettings {
    /// Milliseconds; -1 keeps everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retention_ms: Option<i64>,
    /// Of each partition; -1 keeps everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retention_bytes: Option<i64>,
    /// The longest batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_message_bytes: Option<usize>,
}

impl TopicSettings {
    /// Takes over one setting in the protocol's spelling.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), TopicError> {
        let invalid = |what: &str| {
            TopicError::new(code::INVALID_CONFIG, format!("{name}: {what}, not `{}`", value.unwrap_or("null")))
        };
        let number = |least: i64| {
            let number = value.and_then(|value| value.parse::<i64>().ok()).filter(|&number| number >= least);
            number.ok_or_else(|| invalid(&format!("takes a number of at least {least}")))
        };
        let only = |known: &[&str]| match value {
            Some(value) if known.contains(&value) => Ok(()),
            _ => Err(invalid(&format!("this broker knows only {}", known.join(", ")))),
        };
        match name {
            "retention.ms" => self.retention_ms = Some(number(-1)?),
            "retention.bytes" => self.retention_bytes = Some(number(-1)?),
            "max.message.bytes" => self.max_message_bytes = usize::try_from(number(0)?).ok(),
            "cleanup.policy" => only(&["delete"])?,
            "compression.type" => only(&["producer"])?,
            "message.timestamp.type" => only(&["CreateTime"])?,
            "min.insync.replicas" => only(&["1"])?,
            _ => return Err(invalid("this broker does not know the setting")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_have_no_effect_is_refused() {
        let mut settings = TopicSettings::default();
        settings.set("retention.ms", Some("1000")).unwrap();
        settings.set("cleanup.policy", Some("delete")).unwrap();
        assert_eq!(settings.retention_ms, Some(1000));
        for (name, value) in [
            ("cleanup.policy", Some("compact")),
            ("retention.bytes", Some("-2")),
            ("retention.bytes", None),
            ("flush.ms", Some("1")),
        ] {
            let error = settings.set(name, value).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG, "{name}");
            assert!(error.message.starts_with(name), "{}", error.message);
        }
    }
}
