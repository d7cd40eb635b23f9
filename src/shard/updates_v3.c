/*
 * updates.c again, for processors of the level x86-64-v3 (AVX2, BMI2; from 2013 on).
 */
#if defined(__x86_64__)
#pragma GCC target("arch=haswell,tune=haswell")
#endif

#define UPDATES_TAKE updates_take_v3
#include "shard/updates.c" /* NOLINT(bugprone-suspicious-include) */

updates_fn updates_choose(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) return updates_take_v3;
#endif
    return updates_take;
}
