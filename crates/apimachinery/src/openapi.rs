//! Between schemas and OpenAPI: the `openAPIV3Schema` of a CustomResourceDefinition in, published documents out.

mod complete;
mod definition;
mod expressions;
mod prescribed;
mod publish;
mod structural;

pub use definition::{define, field_at};
pub use publish::{SCALARS, to_json};
pub use structural::{from_json_schema, from_json_schema_at};

#[cfg(test)]
mod tests;
