//! The OpenAPI document, made from the routes as they are registered and from the types that they read and write.
//!
//! Schemas come from `schemars`, which derives them beside `serde`; crates that describe whole routes (`utoipa`) want an
//! attribute of many lines at every handler, and would not notice a route without one. Here a route cannot be registered
//! without its description.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use schemars::SchemaGenerator;
use schemars::generate::{Contract, SchemaSettings};
use serde_json::{Map, Value, json};

use super::Server;
use super::body;
use super::routes::{Access, Route, Routes, Table};

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new("nfl", body::refusal).get("/openapi.json", Access::Open, "This document", answer)
}

async fn answer(State(server): State<Arc<Server>>) -> Response {
    body::json(200, &document(&server.table))
}

/// The document of these routes (<https://spec.openapis.org/oas/v3.1.1.html>).
fn document(table: &Table) -> Value {
    let mut schemas = Schemas::new();
    let mut paths: Map<String, Value> = Map::new();
    for route in table.routes() {
        // A star stands for many parts of a path, for which the standard has no word.
        let path = route.path.replace("{*", "{");
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[route.method.to_ascii_lowercase()] = operation(route, &mut schemas);
    }
    let mut document = json!({
        "openapi": "3.1.1",
        "info": {
            "title": "nfl",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The models of this machine, in the dialects of Ollama, OpenAI and Anthropic.",
        },
        "paths": paths,
        "components": {
            "schemas": Map::new(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "header": { "type": "apiKey", "in": "header", "name": "x-api-key" },
            },
        },
    });
    schemas.define(&mut document);
    document
}

/// Where definitions lie in the document.
const DEFINITIONS: &str = "#/components/schemas/";

/// Where those of what is given are said to lie until all are known.
const GIVEN: &str = "#/components/given/";

/// The types that bodies are made of. One that is read otherwise than it is written has a definition for each.
#[derive(Debug)]
struct Schemas {
    taken: SchemaGenerator,
    given: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = |contract, path: &'static str| {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = path.trim_matches('#').trim_end_matches('/').into();
                settings.meta_schema = None;
                settings.contract = contract;
            })
        };
        Self {
            taken: settings(Contract::Deserialize, DEFINITIONS).into_generator(),
            given: settings(Contract::Serialize, GIVEN).into_generator(),
        }
    }

    /// Puts the definitions into the document.
    fn define(mut self, document: &mut Value) {
        let mut all = self.taken.take_definitions(true);
        let mut given: Vec<(String, Value)> =
            self.given.take_definitions(true).into_iter().collect();
        let taken = all.clone();
        let called = |name: &str| {
            let is_new = !taken.contains_key(name);
            if is_new { name.to_owned() } else { format!("{name}Given") }
        };
        for (name, schema) in &mut given {
            refer(schema, &called);
            all.insert(called(name), schema.take());
        }
        refer(document, &called);
        document["components"]["schemas"] = all.into();
    }
}

/// Makes references to what is given lead to where it lies.
fn refer(value: &mut Value, called: &dyn Fn(&str) -> String) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref")
                && let Some(name) = target.strip_prefix(GIVEN)
            {
                *target = format!("{DEFINITIONS}{}", called(name));
            }
            map.values_mut().for_each(|value| refer(value, called));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| refer(value, called)),
        _ => {}
    }
}

fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let mut content = Map::new();
    if let Some(schema) = route.gives {
        content
            .insert("application/json".to_owned(), json!({ "schema": schema(&mut schemas.given) }));
    }
    for content_type in &route.content_types {
        content.insert((*content_type).to_owned(), json!({}));
    }
    let mut done = json!({ "description": "done" });
    if !content.is_empty() {
        done["content"] = content.into();
    }
    let mut operation = json!({
        "operationId": name(route),
        "summary": route.summary,
        "tags": [route.dialect],
        "responses": {
            "200": done,
            "default": { "description": "what went wrong", "content": { "application/json": {} } },
        },
    });
    if let Some(schema) = route.takes {
        let body = json!({ "schema": schema(&mut schemas.taken) });
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": body } });
    }
    if route.takes_bytes {
        operation["requestBody"] = json!({ "content": { "application/octet-stream": {} } });
    }
    let parameters: Vec<Value> = parameters(route.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation["security"] = match route.access {
        Access::Open => json!([]),
        // An empty one says that it may do without: where nobody made keys, nobody is asked for one.
        Access::Infer | Access::Manage => json!([{ "bearer": [] }, { "header": [] }, {}]),
    };
    operation["x-scope"] = match route.access {
        Access::Open => Value::Null,
        Access::Infer => "infer".into(),
        Access::Manage => "manage".into(),
    };
    operation
}

/// `get_api_blobs_digest`.
fn name(route: &Route) -> String {
    let path = route.path.split(|c: char| !c.is_ascii_alphanumeric());
    let parts = path.filter(|part| !part.is_empty()).map(str::to_ascii_lowercase);
    let method = route.method.to_ascii_lowercase();
    std::iter::once(method).chain(parts).collect::<Vec<_>>().join("_")
}

/// Names in the braces of a path.
fn parameters(path: &str) -> impl Iterator<Item = &str> {
    let inside = path.split('{').skip(1).filter_map(|part| part.split('}').next());
    inside.map(|name| name.trim_start_matches('*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(schemars::JsonSchema)]
    struct Sent {
        _text: String,
        _more: Option<Box<Sent>>,
    }

    async fn nothing() {}

    #[test]
    fn what_is_registered_is_described() {
        let (_, table) = Routes::new("test", body::refusal)
            .post("/api/{*name}", Access::Manage, "Does it", nothing)
            .takes::<Sent>()
            .gives::<Vec<Sent>>()
            .sends("application/x-ndjson")
            .get("/api/{*name}", Access::Open, "Shows it", nothing)
            .parts();
        let document = document(&table);
        let post = &document["paths"]["/api/{name}"]["post"];
        assert_eq!(post["operationId"], "post_api_name");
        assert_eq!(post["parameters"][0]["name"], "name");
        assert_eq!(post["x-scope"], "manage");
        let sent = "#/components/schemas/Sent";
        assert_eq!(post["requestBody"]["content"]["application/json"]["schema"]["$ref"], sent);
        let given = &post["responses"]["200"]["content"];
        // What is written may look otherwise than what is read.
        let written = &given["application/json"]["schema"]["items"]["$ref"];
        assert_eq!(written, "#/components/schemas/SentGiven");
        assert!(given["application/x-ndjson"].is_object());
        assert_eq!(document["components"]["schemas"]["Sent"]["type"], "object");
        assert_eq!(document["paths"]["/api/{name}"]["get"]["security"], json!([]));
    }

    #[test]
    fn every_route_of_the_server_is_in_the_document() {
        let (_, table) = super::super::routes().parts();
        let document = document(&table);
        for route in table.routes() {
            let path = route.path.replace("{*", "{");
            let found = &document["paths"][path][route.method.to_ascii_lowercase()];
            assert_eq!(found["summary"], route.summary, "{} {}", route.method, route.path);
            assert!(!route.summary.is_empty() && !route.summary.ends_with('.'), "{}", route.path);
        }
        let names: Vec<String> = table.routes().iter().map(name).collect();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len(), "names of operations are one each: {names:?}");
    }
}
