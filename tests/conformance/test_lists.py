"""What kube-apiserver 1.37.2 was recorded to answer to lists and watches with all their options, this server answers too."""

from __future__ import annotations

import asyncio

from tests.conformance import lists


def test_lists_and_watches_answer_as_kube_apiserver_was_recorded_to() -> None:
    recorded = lists.recorded()
    answers = asyncio.run(lists.ask_ours([question for question, _ in recorded]))
    wrong = [
        f"{question.title}\n    theirs: {theirs}\n    ours:   {mine}"
        for (question, theirs), mine in zip(recorded, answers, strict=True)
        if mine != theirs
    ]
    assert not wrong, "\n".join(wrong)


def test_the_sample_is_the_one_that_is_recorded() -> None:
    assert [question for question, _ in lists.recorded()] == lists.sample()
