"""What attackers found in earlier code, kind by kind, and the tests that fail on that code."""

import re
from pathlib import Path

import pytest

FOUND = {
    "a prompt of no tokens": ("serving/test_triton.py::test_a_prompt_of_no_tokens", "serving/test_stall.py::test_a_stalled_engine_is_found_and_replaced"),
    "the page reads what is not its visitor's": ("ui/test_guard.py::test_a_crafted_call_reads_no_file_of_the_machine", "ui/test_guard.py::test_another_name_is_not_answered", "ui/test_guard.py::test_a_page_of_another_site_may_not_upload"),
    "bytes that are only announced": ("gateway/test_hostile.py::test_both_lengths_are_refused_and_nothing_is_held", "gateway/test_hostile.py::test_announced_bytes_are_nobodys", "gateway/test_body.py::test_a_body_comes_at_a_least_rate"),
    "a grammar that compiles at once and whose masks take ever longer": ("serving/test_mask_limits.py::test_an_ambiguous_grammar_ends_its_answer_before_its_masks_are_large", "serving/test_mask_limits.py::test_masks_that_take_too_long_end_the_answer"),
    "one key in all places": ("gateway/test_hostile.py::test_one_caller_leaves_room_for_others", "gateway/test_hostile.py::test_one_callers_answers_leave_the_server_to_others"),
    "work before the size is judged": ("serving/test_tokens.py::test_reading_ends_where_the_text_is_too_long", "serving/test_errors.py::test_rows_over_every_door", "gateway/test_hostile.py::test_all_that_a_template_may_write_is_bounded_before_it_runs", "edge/test_tokens.py::test_other_threads_go_on", "ui/test_guard.py::test_a_text_that_no_context_holds_is_refused_unread"),
    "a cancel without an id": ("serving/test_triton.py::test_cancel_without_an_id",),
    "a thread for each caller that left": ("gateway/test_leaks.py::test_callers_who_left_hold_nothing",),
    "decoding without end": ("edge/test_workers.py::test_a_video_of_a_million_frames_ends_at_the_limit", "edge/test_workers.py::test_memory_is_bounded", "edge/test_workers.py::test_who_leaves_ends_the_work", "ui/test_look.py::test_this_process_decodes_no_visitors_picture"),
    "large JSON on the event loop": ("gateway/test_hostile.py::test_large_json_holds_up_nobody", "gateway/test_large_answers.py::test_other_answers_go_on",),
    "tool calls that are read again and again": ("gateway/test_tools.py::test_hostile_calls_are_read_once",),
    "a header that anybody sends switches limits off": ("gateway/test_hostile.py::test_who_is_asking_is_not_for_the_asker_to_say",),
    "kill -9 of the guardian": ("serving/test_launcher.py::test_a_killed_guardian_is_replaced", "serving/test_launcher.py::test_the_unit_file_starts_the_launcher_again"),
    "parameters of generate": ("serving/test_doors.py::test_fields_of_generate_are_the_same_for_both_models", "serving/test_doors.py::test_id_and_timeout_are_fields_of_generate"),
    "legal and extreme sampling": ("serving/test_doors.py::test_extreme_sampling_is_served",),
    "refused values repeated whole": ("serving/test_doors.py::test_refused_values_are_shortened",),
    "500 for the caller's fault": ("gateway/test_refusals.py::test_it_is_said_what_is_wrong", "edge/test_damaged_media.py::test_damage_is_a_media_error_or_a_picture"),
    "check by name, use by name": ("edge/test_access.py::test_a_name_that_changes_between_judging_and_opening_leaks_nothing",),
    "slow connections after the first request": ("gateway/test_hostile.py::test_later_requests_have_the_first_ones_limits",),
    "a killed model process": ("serving/test_health.py::test_back_after_a_kill", "gateway/test_model_killed.py::test_a_killed_model_is_said_as_unavailable"),
    "a caller of the unary model who left": ("serving/test_triton.py::test_leaving_a_unary_request_frees_the_slot",),
    "templates without end": ("edge/test_chat_template.py::test_a_template_that_does_not_end_is_stopped",),
    "wrong manifests, damaged weights, addresses and ports": ("contract/test_wrong_values.py::test_a_wrong_value_of_the_manifest_is_named", "serving/test_weights.py::test_damage_is_one_typed_error", "serving/test_weights.py::test_an_index_names_files_beside_it", "edge/test_fetch.py::test_private_addresses_are_refused", "serving/test_launcher.py::test_a_number_that_no_port_has"),
    "the wheel's Triton on a network": ("serving/test_launcher.py::test_the_wheels_triton_is_for_this_machine",),
    "a vector without direction": ("edge/test_vector_store.py::test_a_vector_without_direction_spoils_no_search",),
}  # fmt: skip


@pytest.mark.parametrize("attack", FOUND)
def test_each_has_its_tests(attack: str) -> None:
    for place in FOUND[attack]:
        file, _, name = place.partition("::")
        assert re.search(rf"^def {name}\(", (Path(__file__).parents[1] / file).read_text(), re.MULTILINE), place
