//! Pieces of HTML. Text becomes HTML in one place, [`Markup::text`]; everything else is written here and is constant.

use std::fmt::Write as _;

/// Pages are built by appending to one of these.
#[derive(Debug, Default)]
pub(super) struct Markup(String);

impl Markup {
    /// Appends constant markup.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Appends text, escaped for elements and for quoted attributes.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
        self
    }

    pub(super) fn number(&mut self, number: impl std::fmt::Display) -> &mut Self {
        let text = number.to_string();
        self.text(&text)
    }

    /// An element with text only. `tag` may carry attributes.
    pub(super) fn element(&mut self, tag: &'static str, text: &str) -> &mut Self {
        let name = tag.split(' ').next().unwrap_or(tag);
        write!(self.0, "<{tag}>").unwrap_or(());
        self.text(text);
        write!(self.0, "</{name}>").unwrap_or(());
        self
    }

    /// The head of a table; names that begin with `#` are those of columns of numbers.
    pub(super) fn table(&mut self, columns: &[&'static str]) -> &mut Self {
        self.raw("<div class=\"scroll\"><table><thead><tr>");
        for column in columns {
            match column.strip_prefix('#') {
                Some(number) => self.element("th class=\"n\"", number),
                None => self.element("th", column),
            };
        }
        self.raw("</tr></thead><tbody>")
    }

    pub(super) fn end_table(&mut self) -> &mut Self {
        self.raw("</tbody></table></div>")
    }

    /// A form of one button. `name` is what the button is called, `fields` what it sends besides the token.
    pub(super) fn button(&mut self, form: &Form<'_>, name: &str, fields: &[(&'static str, &str)]) -> &mut Self {
        self.raw("<form method=\"post\" action=\"").text(form.action).raw("\">");
        self.hidden("csrf_token", form.token);
        for (field, value) in fields {
            self.hidden(field, value);
        }
        self.element("button", name).raw("</form>")
    }

    fn hidden(&mut self, name: &str, value: &str) {
        self.raw("<input type=\"hidden\" name=\"").text(name).raw("\" value=\"").text(value).raw("\">");
    }
}

/// Where forms go, and the token that they carry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form<'a> {
    /// The path of the page.
    pub(super) action: &'a str,
    /// Compared with the cookie.
    pub(super) token: &'a str,
}

/// A whole page around its content.
pub(super) fn page(title: &str, links: &[(String, String)], content: &Markup) -> String {
    let mut out = Markup::default();
    out.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>").text(title);
    out.raw("</title><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    out.raw("<meta name=\"color-scheme\" content=\"light dark\"><link rel=\"stylesheet\" href=\"/static/rings.css\">");
    out.raw("<script src=\"/static/rings.js\" defer></script></head><body><nav>");
    for (path, name) in links {
        out.raw("<a href=\"").text(path);
        out.raw(if title.starts_with(name.as_str()) { "\" aria-current=\"page\">" } else { "\">" });
        out.text(name).raw("</a>");
    }
    out.raw("</nav><main id=\"live\"><h1>").text(title).raw("</h1>");
    out.0.push_str(&content.0);
    out.raw("</main></body></html>\n");
    out.0
}

/// Styles of every page: light and dark by the system's choice.
pub(super) const CSS: &str = r#":root{--fg:#1c1e21;--bg:#fff;--soft:#f4f5f7;--line:#d8dbe0;--ok:#14733a;--note:#2a5db0;--warning:#8a5a00;--fault:#b3261e;--dim:#5f6670}
@media(prefers-color-scheme:dark){:root{--fg:#e4e6ea;--bg:#16181c;--soft:#1e2126;--line:#363a42;--ok:#6cc98c;--note:#8ab4f8;--warning:#e0b050;--fault:#ff8a80;--dim:#9aa1ac}}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,sans-serif;color:var(--fg);background:var(--bg);margin:0 auto;max-width:100rem;padding:1rem 1.5rem 3rem}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;padding-bottom:.8rem;border-bottom:1px solid var(--line)}
nav [aria-current]{color:var(--fg);font-weight:600;text-decoration:none}
a{color:var(--note)}h1{font-size:1.5rem;margin:1rem 0 .2rem}h2{font-size:1.15rem;margin:1.8rem 0 .4rem}p{margin:.4rem 0}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{font-weight:600;color:var(--dim);white-space:nowrap}.n{text-align:right;font-variant-numeric:tabular-nums}
.scroll td code{white-space:nowrap;overflow-wrap:normal}tr:has(+.why)>td{border-bottom:0;padding-bottom:.1rem}.why>td{padding:0 0 .5rem 1.2rem}
.why summary{color:var(--dim)}small,.dim{color:var(--dim)}code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}
.ok{color:var(--ok)}.note{color:var(--note)}.warning{color:var(--warning)}.fault{color:var(--fault);font-weight:600}
.box{background:var(--soft);border-left:4px solid var(--line);padding:.6rem 1rem;margin:.7rem 0}
.box.fault{border-color:var(--fault);color:inherit;font-weight:400}.box.warning{border-color:var(--warning);color:inherit}.box.note{border-color:var(--note);color:inherit}
.box b{display:block}dl{margin:.3rem 0;display:grid;grid-template-columns:max-content 1fr;gap:.1rem .8rem}dt{color:var(--dim)}dd{margin:0}
ul{margin:.2rem 0;padding-left:1.2rem}summary{cursor:pointer}form{display:inline-block;margin:0 .3rem .2rem 0}
button{font:inherit;padding:.15rem .7rem;border:1px solid var(--line);border-radius:4px;background:var(--soft);color:var(--fg);cursor:pointer}
button:hover,button:focus-visible{border-color:var(--note)}.diff{background:color-mix(in srgb,var(--warning) 18%,transparent)}
pre{font:13px/1.4 ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere;background:var(--soft);padding:.8rem}
"#;

/// Fetches the page again every five seconds and puts its content in place, unless somebody is using it.
pub(super) const JS: &str = r#"(function () {
  "use strict";
  var period = 5000;
  function busy(main) {
    var at = document.activeElement;
    var typing = at && main.contains(at) && /^(BUTTON|INPUT|A)$/.test(at.tagName);
    return document.hidden || typing || String(window.getSelection()) !== "";
  }
  // What was unfolded or folded stays so, and the keyboard stays where it was.
  function keep(main, fresh) {
    var at = document.activeElement, focused = null;
    main.querySelectorAll("details[id]").forEach(function (old) {
      var same = fresh.querySelector("[id='" + CSS.escape(old.id) + "']");
      if (same) { same.open = old.open; }
      if (same && at && at.parentNode === old) { focused = same.querySelector("summary"); }
    });
    main.replaceWith(fresh);
    if (focused) { focused.focus({ preventScroll: true }); }
  }
  async function refresh() {
    var main = document.getElementById("live");
    try {
      if (!busy(main)) {
        var answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
        if (answer.ok) {
          var page = new DOMParser().parseFromString(await answer.text(), "text/html");
          var fresh = page.getElementById("live");
          if (fresh && !busy(main)) { keep(main, document.adoptNode(fresh)); }
        }
      }
    } catch (gone) { /* The process is away; the page stays as it was. */ }
    setTimeout(refresh, period);
  }
  setTimeout(refresh, period);
})();
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let mut content = Markup::default();
        content.element("td class=\"n\"", "<script>alert('x')</script> & \"q\"");
        content.button(&Form { action: "/a\"b", token: "t" }, "<b>", &[("forget", "'><i>")]);
        let page = page("<title>", &[("/p\"".into(), "<n>".into())], &content);
        assert!(
            !page.contains("<script>alert") && !page.contains("<i>") && !page.contains("<b>") && !page.contains("<n>")
        );
        assert!(
            page.contains("<td class=\"n\">&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;q&quot;</td>")
        );
        assert!(page.contains("action=\"/a&quot;b\"") && page.contains("value=\"&#39;&gt;&lt;i&gt;\""));
    }

    #[test]
    fn tables_mark_columns_of_numbers() {
        let mut content = Markup::default();
        content.table(&["a", "#b"]).end_table();
        assert!(page("t", &[], &content).contains("<th>a</th><th class=\"n\">b</th>"));
    }
}
