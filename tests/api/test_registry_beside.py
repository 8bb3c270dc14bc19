"""The registry of schemas stands beside the query API."""

from __future__ import annotations

from tests.api.conftest import Scene


def test_the_registry_answers_below_its_own_path(empty: Scene) -> None:
    """With the headers and the hosts of the API, and nothing of it elsewhere."""
    answer = empty.client.get("/registry/schemas/types")
    assert (answer.status_code, answer.json()) == (200, ["AVRO"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    refused = empty.client.put("/registry/config", json={"compatibility": "NONE"})
    assert (refused.status_code, refused.json()["error_code"]) == (422, 42205)
    assert empty.client.get("/subjects").status_code == 404
    wrong = empty.client.get("/registry/subjects", headers={"host": "elsewhere.example"})
    assert wrong.status_code == 400
