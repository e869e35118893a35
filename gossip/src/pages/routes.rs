//! The routes: from requests to views and back. What they show is composed elsewhere.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::{HeaderMap, HeaderValue, Method as HttpMethod, StatusCode, header};
use parking_lot::Mutex;
use vivace_runtime::{Clock, Rng};

use super::caller::Caller;
use super::compose::{self, Boards, Layout, MEMBERLIST, PARTITIONS, RingPage};
use super::csrf;
use super::form::Fields;
use super::html::{CSS, JS};
use super::store_view;
use crate::board::Board;
use crate::partition::Change;
use crate::partition::downscale::{Answer, Method};
use crate::ring::{Command, CommandError};
use crate::state::PartitionState;

/// Forms are a few fields.
const FORM_BYTES_MAX: usize = 16 * 1024;

/// What pages need.
pub struct Setup {
    /// What the host of the rings publishes.
    pub board: Board,
    /// What gossip publishes, where it hosts only some of the rings.
    pub gossip: Option<Board>,
    /// Which pages there are.
    pub layout: Layout,
    /// The time, for people and for how long results of calls are kept.
    pub clock: Arc<dyn Clock>,
    /// For tokens of forms.
    pub rng: Rng,
    /// The two endpoints of a live-store; none elsewhere.
    pub downscale: Option<Arc<dyn Downscale>>,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// What a live-store does when it is told that it will go.
pub trait Downscale: Send + Sync + 'static {
    /// `prepare-partition-downscale`.
    fn partition(&self, method: Method) -> futures::future::BoxFuture<'_, Answer>;
    /// `prepare-downscale`.
    fn instance(&self, method: Method) -> futures::future::BoxFuture<'_, Answer>;
}

struct Pages {
    boards: Boards,
    layout: Layout,
    clock: Arc<dyn Clock>,
    rng: Mutex<Rng>,
    caller: Caller,
}

type Shared = State<Arc<Pages>>;

/// The pages of rings, partitions and membership.
pub fn router(setup: Setup) -> Router {
    let Setup { board, gossip, layout, clock, rng, downscale } = setup;
    let boards = Boards { first: board, gossip };
    let caller = Caller::new(Arc::clone(&clock));
    let mut router = Router::new()
        .route(PARTITIONS, get(partitions).post(change_partition))
        .route(MEMBERLIST, any(memberlist))
        .route("/static/rings.css", get(async || asset("text/css; charset=utf-8", CSS)))
        // Browsers ask for it beside every page of plain text, and complain where it is missing.
        .route("/favicon.ico", get(async || (StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, "max-age=86400")])))
        .route("/static/rings.js", get(async || asset("text/javascript; charset=utf-8", JS)));
    for page in layout.rings.clone() {
        let path = page.path();
        let page = Arc::new(page);
        let handler = move |state: Shared, method: HttpMethod, headers: HeaderMap, query: RawQuery, body: Bytes| {
            ring(state, Arc::clone(&page), method, headers, query, body)
        };
        router = router.route(path, any(handler));
    }
    let pages = Arc::new(Pages { boards, layout, clock, rng: Mutex::new(rng), caller });
    let router = router.layer(DefaultBodyLimit::max(FORM_BYTES_MAX)).with_state(pages);
    match downscale {
        Some(downscale) => router.merge(downscale_router(downscale)),
        None => router,
    }
}

/// Which of the two endpoints.
#[derive(Debug, Clone, Copy)]
enum Prepare {
    Partition,
    Instance,
}

fn downscale_router(downscale: Arc<dyn Downscale>) -> Router {
    let handler = |prepare: Prepare, method: Method| {
        move |State(downscale): State<Arc<dyn Downscale>>, headers: HeaderMap| async move {
            // Tools send these, never a page: what comes from a browser comes from somebody else's.
            if method != Method::Get
                && let Err(why) = csrf::check(&headers, None)
            {
                return refuse(StatusCode::FORBIDDEN, why);
            }
            answer(match prepare {
                Prepare::Partition => downscale.partition(method).await,
                Prepare::Instance => downscale.instance(method).await,
            })
        }
    };
    let mut router = Router::new();
    for (path, prepare) in [
        ("/live-store/prepare-partition-downscale", Prepare::Partition),
        ("/live-store/prepare-downscale", Prepare::Instance),
    ] {
        let methods = get(handler(prepare, Method::Get)).post(handler(prepare, Method::Post));
        router = router.route(path, methods.delete(handler(prepare, Method::Delete)));
    }
    router.with_state(downscale)
}

fn answer(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status == StatusCode::NO_CONTENT {
        return status.into_response();
    }
    let kind = if answer.body.starts_with('{') { "application/json" } else { "text/plain; charset=utf-8" };
    (status, [(header::CONTENT_TYPE, kind)], answer.body).into_response()
}

impl Pages {
    fn now(&self) -> Duration {
        self.clock.unix()
    }

    /// The token of a browser's forms, and the header that gives it, if it has none yet.
    fn token(&self, headers: &HeaderMap) -> (String, Option<HeaderValue>) {
        if let Some(token) = csrf::carried(headers) {
            return (token.to_owned(), None);
        }
        let mut random = [0; csrf::TOKEN_BYTES];
        self.rng.lock().fill(&mut random);
        let token = csrf::token(random);
        let cookie = HeaderValue::from_str(&csrf::cookie(&token)).ok();
        (token, cookie)
    }
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=300")], text).into_response()
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"))
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

/// A page that loads nothing from elsewhere and is shown in no frame, so that nobody is tricked into its buttons.
fn html(text: String, cookie: Option<HeaderValue>) -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                          form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // A script that asks for both forms gets the right one from a cache as well.
        (header::VARY, "Accept"),
    ];
    let mut response = (headers, text).into_response();
    if let Some(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Back to the page, by GET.
fn redirect() -> Response {
    (StatusCode::FOUND, [(header::LOCATION, "#")]).into_response()
}

fn refuse(status: StatusCode, text: impl std::fmt::Display) -> Response {
    (status, format!("{text}\n")).into_response()
}

async fn ring(
    State(pages): Shared,
    page: Arc<RingPage>,
    method: HttpMethod,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response {
    if method == HttpMethod::POST {
        return forget(&pages, &page, &headers, &body).await;
    }
    let view = compose::ring_page(&pages.boards, &pages.caller, &pages.layout, &page, pages.now()).await;
    if wants_json(&headers) {
        return json(view.json());
    }
    let tokens = Fields::parse(query.unwrap_or_default().as_bytes()).get("tokens") == Some("true");
    let (token, cookie) = pages.token(&headers);
    html(view.html(&token, tokens), cookie)
}

async fn forget(pages: &Pages, page: &RingPage, headers: &HeaderMap, body: &[u8]) -> Response {
    let fields = Fields::parse(body);
    if let Err(why) = csrf::check(headers, fields.get("csrf_token")) {
        return refuse(StatusCode::FORBIDDEN, why);
    }
    let Some(id) = fields.get("forget").filter(|id| !id.is_empty()) else {
        return refuse(StatusCode::BAD_REQUEST, "the field \"forget\" must name the instance to forget");
    };
    let command = Command::Forget { ring: page.ring.clone(), id: id.to_owned() };
    match pages.boards.of(&page.ring).command(command).await {
        Ok(()) => redirect(),
        Err(error @ CommandError::Unknown { .. }) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error),
        Err(error) => {
            let text = format!("error forgetting instance '{id}': {error}");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

async fn partitions(State(pages): Shared, headers: HeaderMap) -> Response {
    let view = compose::partition_page(&pages.boards, &pages.caller, &pages.layout, pages.now()).await;
    if wants_json(&headers) {
        return json(view.json());
    }
    let (token, cookie) = pages.token(&headers);
    html(view.html(&token), cookie)
}

async fn change_partition(State(pages): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let fields = Fields::parse(&body);
    if let Err(why) = csrf::check(&headers, fields.get("csrf_token")) {
        return refuse(StatusCode::FORBIDDEN, why);
    }
    let command = match partition_command(&fields) {
        Ok(Some(command)) => command,
        Ok(None) => return redirect(),
        Err(text) => return refuse(StatusCode::BAD_REQUEST, text),
    };
    match pages.boards.of_partitions().command(command).await {
        Ok(()) => redirect(),
        Err(error @ (CommandError::Partition(_) | CommandError::Unknown { .. })) => {
            refuse(StatusCode::BAD_REQUEST, error)
        }
        Err(error @ (CommandError::NoPartitions | CommandError::Unavailable(_))) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, error)
        }
    }
}

/// What a form of the page of partitions asks for; none for an action that is not known.
fn partition_command(fields: &Fields) -> Result<Option<Command>, String> {
    let field = |name: &str| fields.get(name).unwrap_or_default().to_owned();
    let id = || field("partition_id").parse::<u32>().map_err(|error| format!("invalid partition_id: {error}"));
    let state = || {
        let name = field("partition_state");
        PartitionState::of_enum_name(&name).ok_or_else(|| format!("invalid partition_state: {name:?}"))
    };
    let change = match field("action").as_str() {
        "change_state" => Change::State(state()?),
        "change_state_and_lock" => Change::StateAndLock(state()?),
        "state_change_lock" => match field("locked").as_str() {
            "true" | "1" | "t" | "T" | "TRUE" | "True" => Change::Lock(true),
            "false" | "0" | "f" | "F" | "FALSE" | "False" => Change::Lock(false),
            other => return Err(format!("invalid locked: {other:?}; true or false")),
        },
        _ => return Ok(None),
    };
    Ok(Some(Command::Partition { id: id()?, change }))
}

async fn memberlist(State(pages): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let query = Fields::parse(query.unwrap_or_default().as_bytes());
    if pages.boards.of_members().cluster().is_none() {
        return ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "This instance doesn't use memberlist.\n")
            .into_response();
    }
    let records = || Arc::clone(&pages.boards.of_members().rings().records);
    if let Some(ring) = query.get("viewKey") {
        let Some(value) = store_view::as_json(&records(), ring) else {
            return refuse(StatusCode::NOT_FOUND, format!("there is no key {ring:?}"));
        };
        return match query.get("format").unwrap_or("json-pretty") {
            "json" => json(value.to_string()),
            "json-pretty" | "struct" => json(format!("{value:#}\n")),
            other => refuse(StatusCode::BAD_REQUEST, format!("unknown format {other:?}; json, json-pretty or struct")),
        };
    }
    if let Some(ring) = query.get("downloadKey") {
        return match store_view::as_bytes(&records(), ring) {
            Some(bytes) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
            None => refuse(StatusCode::NOT_FOUND, format!("there is no key {ring:?}")),
        };
    }
    if let Some(id) = query.get("viewMsg") {
        let cluster = pages.boards.of_members().cluster();
        let found = cluster.iter().flat_map(|cluster| &cluster.messages).find(|message| message.id.to_string() == id);
        return match found.map(serde_json::to_string_pretty) {
            Some(Ok(text)) => json(text),
            Some(Err(_)) | None => refuse(StatusCode::NOT_FOUND, "that message is not kept any more"),
        };
    }
    if query.get("deleteMessages") == Some("true") {
        return match pages.boards.of_members().command(Command::ClearMessages).await {
            Ok(()) => (StatusCode::FOUND, [(header::LOCATION, MEMBERLIST)]).into_response(),
            Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error),
        };
    }
    match compose::memberlist_page(&pages.boards, &pages.caller, &pages.layout, pages.now()).await {
        None => refuse(StatusCode::OK, "This instance doesn't use memberlist."),
        Some(view) if wants_json(&headers) => json(view.json()),
        Some(view) => html(view.html(), None),
    }
}
