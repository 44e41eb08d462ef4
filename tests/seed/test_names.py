"""The seed report's 55 names, so that none gets lost."""

from __future__ import annotations

import ast
from pathlib import Path

NAMES = {
    "test_cache_warmup.py": {
        "TestGetStandardSystemPrompt": """test_loads_from_file test_returns_fallback_when_file_missing
            test_returns_default_when_no_file_specified test_handles_empty_file test_handles_large_file
            test_handles_unicode_content""",
        "TestWarmupKVCacheFunction": """test_warmup_returns_bool test_warmup_returns_true_on_success
            test_warmup_returns_false_on_failure test_warmup_disabled_when_kv_cache_warmup_zero
            test_warmup_enabled_by_default test_warmup_respects_timeout_config test_warmup_populates_cache
            test_cache_key_generation_is_consistent test_warmup_with_custom_system_file""",
        "TestWarmupTimeout": """test_warmup_timeout_default_is_60_seconds test_warmup_respects_custom_timeout
            test_timeout_environment_variable_overrides_default""",
        "TestWarmupErrorHandling": """test_warmup_handles_missing_cache_manager test_warmup_handles_missing_model
            test_warmup_handles_missing_tokenizer test_warmup_handles_tokenizer_encoding_error
            test_warmup_handles_cache_write_error""",
    },
    "test_cache_warmup_e2e.py": {
        "TestCacheWarmupServerStartup": """test_server_warmup_disabled_skips_warmup
            test_server_warmup_enabled_by_default test_server_starts_even_if_warmup_fails
            test_warmup_runs_between_model_load_and_server_start""",
        "TestFirstRequestCacheHit": """test_cache_populated_after_warmup test_cache_hit_on_matching_prompt
            test_cache_statistics_show_entries_after_warmup""",
        "TestWarmupTimeout": """test_warmup_timeout_is_respected test_warmup_timeout_configurable_via_env
            test_server_continues_if_warmup_times_out""",
        "TestWarmupConfiguration": """test_kv_cache_warmup_enabled_default test_kv_cache_warmup_disabled_via_env
            test_warmup_system_file_env_var test_warmup_timeout_sec_env_var""",
        "TestWarmupWithDifferentPrompts": """test_warmup_with_short_prompt test_warmup_with_long_prompt
            test_warmup_with_structured_prompt""",
        "TestWarmupCacheKeyConsistency": """test_same_prompt_generates_same_cache_key
            test_different_prompts_generate_different_cache_keys""",
    },
    "test_cache_warmup_performance.py": {
        "TestWarmupCompletionTime": """test_warmup_completes_within_60_seconds test_warmup_completes_quickly
            test_warmup_overhead_is_measured""",
        "TestFirstRequestLatency": """test_first_request_hits_cache_within_1_second
            test_cache_operations_are_sub_millisecond""",
        "TestCacheHitRate": "test_cache_hit_rate_after_warmup test_cache_statistics_after_warmup",
        "TestWarmupCacheSizeImpact": """test_warmup_memory_usage_is_reasonable
            test_cache_stays_within_memory_limit""",
        "TestWarmupConcurrency": "test_concurrent_cache_accesses_after_warmup test_warmup_thread_safety",
        "TestWarmupLatencyDistribution": "test_cache_operation_latency_percentiles",
        "TestWarmupComparisonWithoutCache": "test_warmed_cache_is_faster_than_cold",
    },
}


def names_in(path: Path) -> dict[str, set[str]]:
    """Test names by class."""
    classes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    return {
        node.name: {
            item.name
            for item in node.body
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name.startswith("test_")
        }
        for node in classes
    }


def test_every_name_of_the_seed_exists() -> None:
    """Each of the 55 tests is there, under its name, in its class."""
    expected = {
        file: {name: set(tests.split()) for name, tests in classes.items()} for file, classes in NAMES.items()
    }
    found = {file: names_in(Path(__file__).with_name(file)) for file in NAMES}

    assert found == expected
    assert sum(len(tests) for classes in expected.values() for tests in classes.values()) == 55
