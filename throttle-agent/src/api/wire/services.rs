//! Services and their backends: what commands edit one by one, and what each comes to.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Write;
use crate::policy::{Backend, BackendChange, Service, ServiceChange, Speaks, word};

/// All services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Services {
    /// In the policy's order.
    pub services: Vec<Service>,
}

/// A service with what is its.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// As the policy has it.
    pub service: Service,
    /// What its connections carry, whether the policy says it or not.
    #[serde(with = "word")]
    #[schema(schema_with = word::schema::<Speaks>)]
    pub speaks: Speaks,
    /// How many connections its limits allow all together; absent where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// The names of its limits.
    pub limits: Vec<String>,
    /// The names of its backends.
    pub backends: Vec<String>,
}

/// A service to set: created, or replaced as a whole. The name in the path must be the service's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceRequest {
    /// The service.
    pub service: Service,
    /// How to write it.
    #[serde(default)]
    pub write: Write,
}

/// A change of a service: what it does not name stays as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServicePatch {
    /// The change.
    pub change: ServiceChange,
    /// How to write it.
    #[serde(default)]
    pub write: Write,
}

/// All backends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backends {
    /// In the policy's order.
    pub backends: Vec<Backend>,
}

/// A backend with what is left to defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackendView {
    /// As the policy has it.
    pub backend: Backend,
    /// How long it has for an answer, in milliseconds, whether the policy says it or not; absent where it is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_milliseconds: Option<u64>,
}

/// A backend to set: created, or replaced as a whole. The name in the path must be the backend's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendRequest {
    /// The backend.
    pub backend: Backend,
    /// How to write it.
    #[serde(default)]
    pub write: Write,
}

/// A change of a backend: what it does not name stays as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendPatch {
    /// The change.
    pub change: BackendChange,
    /// How to write it.
    #[serde(default)]
    pub write: Write,
}
