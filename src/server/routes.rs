//! Routes: one line each registers a route, says who may use it, and describes it for the OpenAPI document.
//!
//! There is no other way to register one, so that no route can be without an owner or a description.

use std::collections::HashMap;
use std::sync::Arc;

use axum::handler::Handler;
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use axum::{Extension, Router};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::Server;
use super::problem::Problem;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody whose host and origin are in order, with a key or without.
    Open,
    /// Keys of both scopes: whatever asks models, and shows which there are.
    Infer,
    /// Keys that manage only: whatever changes models, or what is loaded for all.
    Manage,
}

/// How a dialect words what went wrong.
pub(super) type Words = fn(&Problem) -> Response;

/// A type's schema.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What is known of a route.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// `GET`, `POST`, …
    pub(super) method: &'static str,
    /// As axum matches it: `/api/blobs/{digest}`.
    pub(super) path: &'static str,
    pub(super) access: Access,
    /// What it does, in a line.
    pub(super) summary: &'static str,
    /// Whose it is, for readers of the document.
    pub(super) dialect: &'static str,
    /// The JSON body that it takes.
    pub(super) takes: Option<SchemaOf>,
    /// Whether its body is bytes of any kind.
    pub(super) takes_bytes: bool,
    /// The JSON that it gives.
    pub(super) gives: Option<SchemaOf>,
    /// The content types of streamed answers, and of those that are no JSON.
    pub(super) content_types: Vec<&'static str>,
    pub(super) words: Words,
}

/// Routes of one dialect, or of all.
#[derive(Debug)]
pub(super) struct Routes {
    router: Router<Arc<Server>>,
    described: Vec<Route>,
    dialect: &'static str,
    words: Words,
}

impl Routes {
    /// No routes yet, of a dialect that words problems so.
    pub(super) fn new(dialect: &'static str, words: Words) -> Self {
        Self { router: Router::new(), described: Vec::new(), dialect, words }
    }

    /// A route that is asked with GET, and with HEAD.
    pub(super) fn get<T: 'static>(
        self,
        path: &'static str,
        access: Access,
        summary: &'static str,
        handler: impl Handler<T, Arc<Server>>,
    ) -> Self {
        self.add(MethodFilter::GET, ("GET", path, access, summary), handler)
    }

    /// A route that is asked with POST.
    pub(super) fn post<T: 'static>(
        self,
        path: &'static str,
        access: Access,
        summary: &'static str,
        handler: impl Handler<T, Arc<Server>>,
    ) -> Self {
        self.add(MethodFilter::POST, ("POST", path, access, summary), handler)
    }

    /// A route that is asked with DELETE.
    pub(super) fn delete<T: 'static>(
        self,
        path: &'static str,
        access: Access,
        summary: &'static str,
        handler: impl Handler<T, Arc<Server>>,
    ) -> Self {
        self.add(MethodFilter::DELETE, ("DELETE", path, access, summary), handler)
    }

    /// A route that is asked with HEAD only.
    pub(super) fn head<T: 'static>(
        self,
        path: &'static str,
        access: Access,
        summary: &'static str,
        handler: impl Handler<T, Arc<Server>>,
    ) -> Self {
        self.add(MethodFilter::HEAD, ("HEAD", path, access, summary), handler)
    }

    fn add<T: 'static>(
        mut self,
        filter: MethodFilter,
        (method, path, access, summary): (&'static str, &'static str, Access, &'static str),
        handler: impl Handler<T, Arc<Server>>,
    ) -> Self {
        self.router = self.router.route(path, on(filter, handler));
        self.described.push(Route {
            method,
            path,
            access,
            summary,
            dialect: self.dialect,
            takes: None,
            takes_bytes: false,
            gives: None,
            content_types: Vec::new(),
            words: self.words,
        });
        self
    }

    /// The last route takes this as its JSON body.
    pub(super) fn takes<B: JsonSchema>(mut self) -> Self {
        self.last().takes = Some(SchemaGenerator::subschema_for::<B>);
        self
    }

    /// The last route takes bytes, whatever they are.
    pub(super) fn takes_bytes(mut self) -> Self {
        self.last().takes_bytes = true;
        self
    }

    /// The last route gives this as JSON.
    pub(super) fn gives<B: JsonSchema>(mut self) -> Self {
        self.last().gives = Some(SchemaGenerator::subschema_for::<B>);
        self
    }

    /// The last route gives content of this type, too: when it streams, or for some clients.
    pub(super) fn sends(mut self, content_type: &'static str) -> Self {
        self.last().content_types.push(content_type);
        self
    }

    fn last(&mut self) -> &mut Route {
        self.described.last_mut().expect("a description follows its route")
    }

    /// These routes and others.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.described.extend(other.described);
        self
    }

    /// The same routes, whose handlers may ask for `shared` as an extension.
    pub(super) fn with<S: Clone + Send + Sync + 'static>(mut self, shared: S) -> Self {
        self.router = self.router.layer(Extension(shared));
        self
    }

    /// The router, and what is known of its routes.
    pub(super) fn parts(self) -> (Router<Arc<Server>>, Table) {
        let index = self.described.iter().enumerate();
        let index = index.map(|(at, route)| ((route.method, route.path), at)).collect();
        (self.router, Table { routes: self.described, index })
    }
}

/// What is known of all routes.
#[derive(Debug)]
pub(super) struct Table {
    routes: Vec<Route>,
    index: HashMap<(&'static str, &'static str), usize>,
}

impl Table {
    /// All of them, in the order in which they were registered.
    pub(super) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The route that answers a method on a path as axum matched it. What GET answers answers HEAD too.
    pub(super) fn find<'a>(&'a self, method: &'a str, path: &'a str) -> Option<&'a Route> {
        let at = self.index.get(&(method, path)).or_else(|| match method {
            "HEAD" => self.index.get(&("GET", path)),
            _ => None,
        })?;
        self.routes.get(*at)
    }

    /// How the dialect that has a path words problems, whatever the method.
    pub(super) fn words(&self, path: &str) -> Option<Words> {
        self.routes.iter().find(|route| route.path == path).map(|route| route.words)
    }
}
