$(BUILD)/tests/unit/test_clock_step: TEST_LDFLAGS := -Wl,--wrap=clock_wall_ms
