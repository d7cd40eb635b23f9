$(BUILD)/tests/fuzz/fuzz_jsontext: TEST_LIBS := -ljansson
