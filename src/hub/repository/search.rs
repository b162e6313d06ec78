//! Searching a hub for models that run here.

use super::super::ask::Question;
use super::super::error::HubError;
use super::Repositories;
use super::wire::Hit;

/// A repository with GGUF files.
#[derive(Debug, Clone)]
pub struct Found {
    /// OWNER/NAME.
    pub repository: String,
    /// How often it was downloaded in the last month.
    pub downloads: u64,
    /// How many people like it.
    pub likes: u64,
    /// When it was last changed.
    pub modified: Option<String>,
    /// Whether its terms must be accepted first.
    pub is_gated: bool,
    /// Weights of its model.
    pub weights: Option<u64>,
    /// Its architecture.
    pub architecture: Option<String>,
    /// Tokens of context that it was made for.
    pub context: Option<u64>,
}

impl Repositories<'_> {
    /// Up to `count` repositories with GGUF files that match all words, the most downloaded first.
    pub(crate) async fn search(&self, words: &str, count: u32) -> Result<Vec<Found>, HubError> {
        let mut route = self.route("api/models")?;
        route.url.query_pairs_mut().extend_pairs([
            ("search", words),
            ("filter", "gguf"),
            ("sort", "downloads"),
            ("direction", "-1"),
            ("limit", &count.to_string()),
        ]);
        let fields = ["gguf", "downloads", "likes", "lastModified", "gated"];
        route.url.query_pairs_mut().extend_pairs(fields.map(|field| ("expand[]", field)));
        let answer = self.network.ask(&route, &Question::get()).await?.success()?;
        let hits: Vec<Hit> = answer.json()?;
        let found = |hit: Hit| {
            let gguf = hit.gguf;
            Found {
                repository: hit.id,
                downloads: hit.downloads,
                likes: hit.likes,
                modified: hit.last_modified,
                is_gated: !matches!(
                    hit.gated,
                    serde_json::Value::Null | serde_json::Value::Bool(false)
                ),
                weights: gguf.as_ref().and_then(|gguf| gguf.total),
                architecture: gguf.as_ref().and_then(|gguf| gguf.architecture.clone()),
                context: gguf.and_then(|gguf| gguf.context_length),
            }
        };
        Ok(hits.into_iter().take(count as usize).map(found).collect())
    }
}
