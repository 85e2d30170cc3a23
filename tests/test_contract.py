"""Protects what the API's own document says: a client that is made from it gets what it promises.

Every request and every answer, errors too, is checked against /openapi.json of a real server.
"""

import base64
import re

import httpx
import pytest
from fastapi.openapi.models import OpenAPI
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from server import BOX, MODEL, base, client, picture, service
from watching import eventually

from image2cad.common import EFFORTS, VERSION
from image2cad.serving.api.routes import make_api
from metrics.execution import measure_file, run_cadquery

__all__ = ["base", "client", "service"]  # fixtures

PICTURE = [("image", ("bracket 7.png", picture, "image/png"))]


class Described:
    """A client by a server's document: its operations by their ids."""

    def __init__(self, base):
        self.http = httpx.Client(base_url=base, timeout=120)
        self.document = self.http.get("/openapi.json").json()
        self.operations = {
            about["operationId"]: (method, path, about)
            for path, methods in self.document["paths"].items()
            for method, about in methods.items()
        }
        self.called = set()

    def check(self, value, schema):
        """Fail unless the value is what the schema says."""
        whole = {**schema, "components": self.document["components"]}
        faults = [error.message for error in Draft202012Validator(whole).iter_errors(value)]
        assert not faults, faults

    def example(self, operation):
        """The request that the document shows."""
        content = self.operations[operation][2]["requestBody"]["content"]["application/json"]
        name = content["schema"]["$ref"].rpartition("/")[2]
        return self.document["components"]["schemas"][name]["example"]

    def call(self, operation, wrong=False, json=None, files=None, data=None, headers=None, **named):
        """The answer. wrong: the request is not to fit the document. named: parameters."""
        method, path, about = self.operations[operation]
        self.called.add(operation)
        known = {one["name"]: one for one in about.get("parameters", [])}
        query = {}
        for name, value in named.items():
            if not wrong:
                self.check(value, known[name]["schema"])
            if known[name]["in"] == "path":
                path = path.replace(f"{{{name}}}", value)
            else:
                query[name] = value
        if json is not None and not wrong:
            self.check(json, about["requestBody"]["content"]["application/json"]["schema"])
        if files is not None:
            files = [(field, (name, data(), kind)) for field, (name, data, kind) in files]
        answer = self.http.request(
            method, path, params=query, json=json, files=files, data=data, headers=headers
        )
        said = about["responses"][str(answer.status_code)]  # a status that it does not tell of
        kind = answer.headers["content-type"].partition(";")[0]
        assert kind in said["content"], (kind, said["content"])
        if kind == "application/json":
            self.check(answer.json(), said["content"][kind]["schema"])
        return answer


@pytest.fixture(scope="module")
def described(base):
    return Described(base)


def test_the_document_is_valid_and_tidy(described):
    document = described.document
    OpenAPI.model_validate(document)
    assert document["info"]["version"] == VERSION
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert re.fullmatch(r"[A-Z]\w*", name) and "Validation" not in name
        if "example" in schema:
            described.check(schema["example"], {"$ref": f"#/components/schemas/{name}"})
    for operation, (_, path, about) in described.operations.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)?", operation), operation
        for status, answer in about["responses"].items():
            if int(status) >= 400:
                problem = answer["content"]["application/json"]["schema"]["$ref"]
                assert problem.endswith("/ProblemAnswer"), (operation, status)
        assert "default" not in about["responses"] and path in document["paths"]
    efforts = document["components"]["schemas"]["Chat"]["properties"]["effort"]["enum"]
    form = document["components"]["schemas"]["Body_generate"]["properties"]["effort"]["enum"]
    assert efforts == form == list(EFFORTS)


def test_the_examples_of_the_documentation_work_as_they_stand(described):
    answer = described.call("chat_completions", json=described.example("chat_completions"))
    code = answer.json()["choices"][0]["message"]["content"]
    assert answer.json()["model"] == MODEL and answer.json()["image2cad"]["likeness"] > 0.99
    assert run_cadquery(code).solids == 1
    ran = described.call("execute", json=described.example("execute")).json()
    assert ran["part"]["volume"] == pytest.approx(6) and set(ran["files"]) == {"step"}
    score = described.call("score", json=described.example("score")).json()
    assert score["vsr"] == 1 and 0.5 < score["iou_best"] < 1


def test_every_operation_by_the_document_alone(described, tmp_path):
    call = described.call
    assert call("health").json() == {"status": "ok"} and call("ready").json()["status"] == "ready"
    assert call("version").json() == {"name": "image2cad", "version": VERSION, "model": MODEL}
    assert "image2cad_running" in call("metrics").text
    assert call("list_models").json()["data"][0]["id"] == MODEL
    assert call("get_model", name=MODEL).json()["object"] == "model"
    made = call("generate", files=PICTURE, data={"effort": "none", "files": "stl"}).json()
    assert made["part"]["size"] == "assumed" and "size assumed" in made["part"]["text"]
    job = call("create_job", files=PICTURE, data={"effort": "none", "files": "step"})
    assert job.status_code == 202 and job.headers["location"] == f"/v1/jobs/{job.json()['id']}"
    name = job.json()["id"]
    assert eventually(lambda: call("get_job", id=name).json()["status"] == "done", 60)
    result = call("get_job", id=name).json()["result"]
    assert result["code"] == made["code"] and set(result["files"]) == {"step"}
    file = call("get_job", id=name, format="step")
    (tmp_path / "part.step").write_bytes(file.content)
    assert measure_file(tmp_path / "part.step").volume == pytest.approx(result["part"]["volume"])
    assert call("cancel_job", id=name).json()["status"] == "done"  # too late, and no harm
    assert "not asked for" in call("get_job", id=name, format="glb").json()["error"]["message"]
    described.call("execute", json={"code": BOX})
    described.call("score", json={"prediction": BOX, "reference": BOX})
    described.call("chat_completions", json=described.example("chat_completions"))
    assert described.called == set(described.operations)


def test_errors_are_what_the_document_says(described):
    call = described.call
    for status, answer in [
        (404, call("get_model", name="another")),
        (404, call("get_job", id="none")),
        (404, call("cancel_job", id="none")),
        (422, call("generate", True, files=PICTURE, data={"effort": "odd"})),
        (422, call("create_job", True, files=PICTURE, data={"effort": "odd"})),
        (422, call("execute", True, json={"codes": "x"})),
        (422, call("execute", True, json={"code": BOX}, format="exe")),
        (406, call("execute", json={"code": BOX}, headers={"Accept": "model/iges"})),
        (413, call("execute", True, json={"code": "x" * 300_000})),
        (422, call("score", json={"prediction": BOX, "reference": "oops"})),
        (400, call("chat_completions", json={"model": MODEL, "messages": [{"role": "user"}]})),
    ]:
        assert answer.status_code == status and answer.json()["error"]["message"]


def test_files_as_files(described, tmp_path):
    def kept(answer):
        assert answer.status_code == 200, answer.text
        file = tmp_path / re.search('filename="([^"]*)"', answer.headers["content-disposition"])[1]
        file.write_bytes(answer.content)
        return file

    accept = {"Accept": "model/step, application/json;q=0.5"}
    form = {"effort": "none", "length": "80"}
    answer = described.call("generate", files=PICTURE, data=form, headers=accept)
    file = kept(answer)
    assert file.name == "bracket 7.step" and answer.headers["content-type"] == "model/step"
    low, high = measure_file(file).bounding_box
    assert (high - low).max() == pytest.approx(80, rel=1e-6)
    assert answer.headers["x-image2cad-size"] == "given" and "mm3" in str(answer.headers)
    assert float(answer.headers["x-image2cad-likeness"]) >= 0
    for kind in ("stl", "3mf"):
        answer = described.call("execute", json={"code": BOX, "name": "Größe"}, format=kind)
        assert kept(answer).name == f"Gr__e.{kind}" and "Gr%C3%B6%C3%9Fe" in str(answer.headers)
        assert measure_file(kept(answer)).volume == pytest.approx(48_000, rel=1e-5)
    text = described.call("execute", json={"code": BOX}, headers={"Accept": "text/x-python"})
    assert text.text == BOX
    for header in ("*/*", "text/html, */*;q=0.1", "model/step;q=0, application/*"):
        whole = described.call("execute", json={"code": BOX}, headers={"Accept": header})
        assert "part" in whole.json()
    nothing = described.call("execute", json={"code": "oops"}, format="step")
    assert nothing.status_code == 422 and nothing.json()["error"]["code"] == "no_part"
    sphere = {"code": "result = cq.Workplane().sphere(3)"}
    flat = described.call("execute", json=sphere, format="dxf")
    assert flat.status_code == 422 and flat.json()["error"]["code"] == "no_file"
    whole = described.call("execute", json={"code": BOX, "files": ["step"]}).json()
    assert base64.b64decode(whole["files"]["step"]).startswith(b"ISO-10303-21")


def test_other_sites_read_answers_where_a_setting_lets_them(service):
    site = {"Origin": "https://cad.example"}
    asked = {"Access-Control-Request-Method": "POST", **site}
    asked["Access-Control-Request-Headers"] = "authorization, content-type, idempotency-key"
    let_in = TestClient(make_api(service, origins=["https://cad.example"]))
    before = let_in.options("/v1/jobs", headers=asked)
    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] == "https://cad.example"
    answer = let_in.post("/v1/execute", json={"code": BOX}, headers=site)
    assert answer.headers["access-control-allow-origin"] == "https://cad.example"
    assert "Content-Disposition" in answer.headers["access-control-expose-headers"]
    alone = TestClient(make_api(service))
    assert "access-control-allow-origin" not in alone.options("/v1/jobs", headers=asked).headers
