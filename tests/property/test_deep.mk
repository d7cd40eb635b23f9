$(BUILD)/tests/property/test_deep: TEST_LIBS := -ljansson
