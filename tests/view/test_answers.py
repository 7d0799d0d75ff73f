"""The page's answers as plain values: images, lists, noise, and answers that come too late."""

import pytest

from heatproof.live.study_images import StudyImages
from heatproof.view.answers import Answers, Chosen, Found, Session
from heatproof.view.study_collection import StudyCollection
from heatproof.view.viewer import Viewer

from .stores import KIND

CHOSEN = Chosen(["gradcam", "eigencam"], kind=KIND)


@pytest.fixture(scope="module")
def answers(study) -> Answers:
    return Answers(Viewer(StudyCollection(study, StudyImages(study))))


def test_steps_through_the_list_turn_its_pages(answers):
    session, found = Session(answers.first), Found()
    for _ in range(answers.count - 1):
        session, listing, stage, noise, region = answers.stepped(session, found, CHOSEN, 1)
    assert (session.page, session.key) == (1, answers.count - 1) and "page 2 of 2" in listing
    assert answers.stepped(session, found, CHOSEN, 1)[0].key == session.key  # the end
    assert f'data-key="{session.key}"' in stage and "<table" in noise and region == ""
    assert answers.stepped(session, found, CHOSEN, -1)[0].key == session.key - 1


def test_pages_are_turned_within_their_bounds(answers):
    session, listing = answers.turned(Session(0), Found(), 1)
    assert session.page == 1 and "page 2 of 2" in listing
    assert answers.turned(session, Found(), 5)[0].page == 1 and answers.turned(session, Found(), -9)[0].page == 0
    session, listing = answers.filtered(session, Found(["changed"]))
    assert session.page == 0 and "8 of 30 images" in listing


def test_a_severity_becomes_one_that_is_stored(answers):
    session, severity, stage, noise, _ = answers.moved(Session(0), CHOSEN._replace(severity=4))
    assert (severity, session.seen) == (3, (3,)) and "severity 3" in stage and 'aria-current="true"' in noise
    assert answers.moved(Session(0), CHOSEN._replace(severity=1), by=1)[1] == 3
    assert answers.moved(Session(0), CHOSEN._replace(severity=3), by=1)[1] == 3
    assert answers.moved(Session(0), CHOSEN._replace(severity=0), by=-1)[1] == 0
    assert answers.other_noise(session, CHOSEN)[0].seen == ()


@pytest.mark.parametrize("key", [-1, 30, "3", None, True, 1.5])
def test_a_key_that_is_none_changes_nothing(answers, key):
    assert answers.picked(Session(4), Found(), CHOSEN, key)[0].key == 4


def test_an_answer_that_comes_too_late_is_none(answers):
    before = Session(0)
    after = answers.picked(before, Found(), CHOSEN, 3)[0]
    assert after.key == 3 and before.late and not after.late
    assert answers.stage(before, CHOSEN) is None and answers.moved(before, CHOSEN) is None
    assert answers.rechosen(before, CHOSEN) is None and answers.stage(after, CHOSEN)
    assert answers.erased(before, CHOSEN, {"key": 0, "strokes": [[[0.5, 0.5]]]}) is None


def test_a_region_without_a_network_says_what_the_maps_say(answers):
    session, text = answers.erased(Session(2), CHOSEN, {"key": 2, "strokes": [[[0.5, 0.5]]], "radius": 0.2})
    assert "What the maps foretold" in text and "Without this region" not in text
    assert answers.rechosen(session, CHOSEN)[2] == text  # the region stays while other things change
    assert answers.cleared(session)[1] == "" and answers.rechosen(answers.cleared(session)[0], CHOSEN)[2] == ""
    assert answers.erased(Session(2), CHOSEN, {"key": 1, "strokes": [[[0.5, 0.5]]]}) is None
