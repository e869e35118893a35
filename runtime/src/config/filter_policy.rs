//! Which spans a processor of the metrics-generator looks at, and which labels it gives.

use super::Any;

crate::config_struct! {
    /// Which spans a processor looks at: all of `include`, one of `include_any`, none of `exclude`.
    pub struct FilterPolicy {
        /// All of these must match.
        pub include: Option<PolicyMatch> = None,
        /// One of these must match.
        pub include_any: Option<PolicyMatch> = None,
        /// None of these may match.
        pub exclude: Option<PolicyMatch> = None,
    }
}

crate::config_struct! {
    /// Attributes to compare.
    pub struct PolicyMatch {
        /// `strict`: equal. `regex`: the value is a regular expression.
        pub match_type: String = String::new(),
        /// The attributes.
        pub attributes: Vec<PolicyAttribute> = Vec::new(),
    }
}

crate::config_struct! {
    /// One attribute to compare.
    pub struct PolicyAttribute {
        /// Its name with scope: `span.http.method`, `resource.service.name`, or an intrinsic such as `kind`.
        pub key: String = String::new(),
        /// Its value, of the attribute's own type.
        pub value: Any = Any::default(),
    }
}

crate::config_struct! {
    /// A label made of attributes.
    pub struct DimensionMapping {
        /// Label.
        pub name: String = String::new(),
        /// Attributes whose values make it.
        pub source_labels: Vec<String> = Vec::new(),
        /// What stands between the values.
        pub join: String = String::new(),
    }
}
