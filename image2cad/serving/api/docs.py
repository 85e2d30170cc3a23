"""The page at /docs: every route of /openapi.json with a form to try it, in one HTML text.

FastAPI's own page loads Swagger UI from the internet; this one needs nothing. Left out:
descriptions of the answers' fields, which /openapi.json has.
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>image2cad API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }
details { border: 1px solid #ccc; border-radius: 6px; margin: .6rem 0; padding: .5rem .8rem }
summary { cursor: pointer } summary b { display: inline-block; width: 3.5rem; color: #06c }
summary code { margin-right: .8rem } label { display: block; margin: .5rem 0 }
textarea { width: 100%; box-sizing: border-box; height: 11rem }
textarea, pre, code { font: 14px/1.45 ui-monospace, monospace }
pre { background: #f4f4f4; padding: .7rem; overflow: auto; max-height: 28rem; white-space: pre-wrap;
      word-break: break-word }
input:not([type=file]) { padding: .2rem .4rem } small { color: #666 }
</style></head><body>
<h1>image2cad API</h1><p id="about"></p>
<p><label>API key <input id="key" type="password" autocomplete="off"
placeholder="where the server wants one"></label>
<small>The whole description: <a href="openapi.json">openapi.json</a></small></p>
<div id="routes">loading openapi.json</div>
<script>
const make = (tag, options = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), options);
  element.append(...inside);
  return element;
};
const base = location.pathname.replace(/docs\\/?$/, "").replace(/\\/$/, "");

function form(path, method, route, schemas) {
  const content = route.requestBody ? route.requestBody.content : {};
  const [type] = Object.keys(content);
  const named = type && content[type].schema;
  const schema = named && named.$ref ? schemas[named.$ref.split("/").pop()] : named;
  const box = make("form"), fields = {}, result = make("pre", { hidden: true });
  if (type === "application/json") {
    fields.json = make("textarea", { spellcheck: false,
      value: JSON.stringify(schema.example || {}, null, 2) });
    box.append(fields.json);
  } else if (type) {
    for (const [name, about] of Object.entries(schema.properties)) {
      const isFile = about.format === "binary" || "contentMediaType" in about;
      fields[name] = make("input", { type: isFile ? "file" : "text", value: about.default || "",
        required: (schema.required || []).includes(name) });
      box.append(make("label", {}, name + " ", fields[name], " ",
        make("small", { textContent: about.description || "" })));
    }
  }
  box.append(make("button", { textContent: "Send" }), result);
  box.onsubmit = async (event) => {
    event.preventDefault();
    const options = { method, headers: {} }, key = document.getElementById("key").value;
    if (key) options.headers.Authorization = "Bearer " + key;
    if (fields.json) {
      options.headers["Content-Type"] = type;
      options.body = fields.json.value;
    } else if (type) {
      options.body = new FormData();
      for (const [name, field] of Object.entries(fields))
        options.body.append(name, field.type === "file" ? field.files[0] : field.value);
    }
    result.hidden = false;
    result.textContent = "waiting for the answer";
    const started = performance.now();
    try {
      const answer = await fetch(base + path, options), text = await answer.text();
      let shown = text;
      try {
        const short = (_, v) =>
          typeof v === "string" && v.length > 2000 ? v.slice(0, 60) + " and so on" : v;
        shown = JSON.stringify(JSON.parse(text), short, 2);
      } catch { /* not JSON: shown as it is */ }
      const seconds = ((performance.now() - started) / 1000).toFixed(2);
      result.textContent = `${answer.status} ${answer.statusText}, ${seconds} s\\n\\n${shown}`;
    } catch (error) {
      result.textContent = "no answer: " + error.message;
    }
  };
  return box;
}

fetch(base + "/openapi.json").then((answer) => answer.json()).then((api) => {
  document.getElementById("about").textContent = api.info.description || "";
  const list = document.getElementById("routes");
  list.replaceChildren();
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, route] of Object.entries(methods))
      list.append(make("details", {},
        make("summary", {}, make("b", { textContent: method.toUpperCase() }),
          make("code", { textContent: path }), route.summary || ""),
        make("p", { textContent: route.description || "" }),
        form(path, method.toUpperCase(), route, (api.components || {}).schemas || {})));
});
</script></body></html>
"""
