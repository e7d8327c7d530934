from pathlib import Path

import numpy as np
import pytest

from vtr_runtime.errors import ConfigError
from vtr_training.data.clip import Clip
from vtr_training.data.split import caption_rows
from vtr_training.evaluate import evaluate_embeddings, evaluate_scores

RNG = np.random.default_rng(0)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_clips(groups=6, loose=3):
    made = [
        Clip(Path(f"{g}-{m}.mp4"), (f"{g} {m} a", f"{g} {m} b")[: 1 + m % 2], "test", group=f"g{g}", kind="ab"[g % 2])
        for g in range(groups)
        for m in range(4)
    ]
    return made + [Clip(Path(f"loose-{i}.mp4"), ("x",), "test") for i in range(loose)]


def test_captions_and_their_owners():
    captions, owners = caption_rows(make_clips(1, 1))
    assert captions == ["0 0 a", "0 1 a", "0 1 b", "0 2 a", "0 3 a", "0 3 b", "x"]
    assert owners.tolist() == [0, 1, 1, 2, 3, 3, 4]


def test_within_groups_equals_the_loop():
    clips = make_clips()
    captions, owners = caption_rows(clips)
    video, text = unit(RNG.normal(size=(len(clips), 8))), unit(RNG.normal(size=(len(captions), 8)))
    text = unit(text + 0.7 * video[owners])
    found = {group.kind: group for group in evaluate_embeddings(clips, video, text, owners).groups}
    for kind in ("a", "b", "all"):
        chosen = [i for i, clip in enumerate(clips) if clip.group and kind in (clip.kind, "all")]
        t2v, v2t = [], []
        for i in chosen:
            members = [j for j in chosen if clips[j].group == clips[i].group]
            for row in np.flatnonzero(owners == i):
                t2v.append(float(max(members, key=lambda j: text[row] @ video[j]) == i))
            rows = [row for row in range(len(captions)) if owners[row] in members]
            v2t.append(float(owners[max(rows, key=lambda row: text[row] @ video[i])] == i))
        assert found[kind].queries == len(t2v)
        assert found[kind].t2v_r1 == pytest.approx(np.mean(t2v))
        assert found[kind].v2t_r1 == pytest.approx(np.mean(v2t))
        assert found[kind].order_blind == 0.25
    assert 0.25 < found["all"].t2v_r1 < 1


def test_an_order_blind_model_stays_at_the_ceiling_in_spite_of_rounding():
    clips = make_clips(loose=0)
    captions, owners = caption_rows(clips)
    video = unit(RNG.normal(size=(6, 16))).repeat(4, axis=0) + RNG.normal(scale=1e-7, size=(24, 16)).astype(np.float32)
    text = unit(video[owners] + RNG.normal(scale=0.1, size=(len(captions), 16)))
    found = evaluate_embeddings(clips, video, text, owners)
    assert [group.t2v_r1 for group in found.groups] == pytest.approx([0.25] * 3)
    assert found.group_r1 == pytest.approx(0.25)
    assert found.retrieval.t2v.recall[5] == 100  # the group itself is found


def test_a_lone_member_is_no_group():
    clips = [Clip(Path("a.mp4"), ("a",), "val", group="g"), Clip(Path("b.mp4"), ("b",), "val", group="h")]
    found = evaluate_embeddings(clips, np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), np.arange(2))
    assert found.groups == ()
    assert found.group_r1 is None
    assert "within_groups_r1" not in found.to_json()
    with pytest.raises(ConfigError, match="needs groups"):
        found.value("t2v_r1+group_r1")


def test_the_number_that_chooses():
    clips = make_clips(2, 0)
    captions, owners = caption_rows(clips)
    video = unit(np.eye(8))
    text = video[owners].copy()
    text[0] = video[1]  # wrong within its group
    found = evaluate_embeddings(clips, video, text, owners)
    right = 1 - 1 / len(captions)
    assert found.value("t2v_r1") == pytest.approx(right)
    assert found.value("t2v_r1+group_r1") == pytest.approx(right)
    assert found.value("rsum") == pytest.approx(found.retrieval.rsum / 100)
    assert found.summary()["group_r1_all"] == pytest.approx(right)


def test_caption_groups_are_reported_where_a_clip_has_several_captions():
    clips = make_clips(2, 1)
    captions, owners = caption_rows(clips)
    video, text = unit(RNG.normal(size=(len(clips), 8))), unit(RNG.normal(size=(len(captions), 8)))
    found = evaluate_embeddings(clips, video, text, owners)
    scores = text.astype(float) @ video.astype(float).T
    best = np.array([[scores[owners == group, query].max() for group in range(9)] for query in range(9)])
    places = [1 + int((row > row[query]).sum()) for query, row in enumerate(best)]
    assert found.v2t_caption_groups.mean_rank == pytest.approx(np.mean(places))
    assert found.v2t_caption_groups.gallery == 9
    assert list(found.directions) == ["t2v", "v2t", "v2t_caption_groups"]
    assert found.to_json()["v2t_caption_groups"]["MnR"] == pytest.approx(np.mean(places))


def test_one_caption_a_clip_needs_no_caption_groups():
    clips = make_clips(0, 4)
    found = evaluate_embeddings(clips, np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), np.arange(4))
    assert found.v2t_caption_groups is None
    assert "v2t_caption_groups" not in found.to_json()


def test_the_way_back_has_its_own_scores_everywhere():
    clips = [Clip(Path(f"{i}.mp4"), (f"{i} a", f"{i} b"), "test", group="g", kind="a") for i in range(3)]
    owners = np.repeat(np.arange(3), 2)
    right = (owners[:, None] == np.arange(3)).astype(float)
    found = evaluate_scores(clips, right, owners, backward=-right.T)
    assert (found.retrieval.t2v.recall[1], found.retrieval.v2t.recall[1]) == (100, 0)
    assert found.v2t_caption_groups.recall[1] == 0
    assert (found.groups[-1].t2v_r1, found.groups[-1].v2t_r1) == (1, 0)


def test_the_tolerance_is_the_callers():
    clips, scores = make_clips(0, 2), np.array([[0.5, 0.5 - 1e-6], [0.5 - 1e-6, 0.5]])
    assert evaluate_scores(clips, scores, np.arange(2)).retrieval.t2v.recall[1] == 50
    assert evaluate_scores(clips, scores, np.arange(2), tolerance=0.0).retrieval.t2v.recall[1] == 100
