/* SPDX-License-Identifier: Apache-2.0
 *
 * Windows of VCDIFF made by hand, and random ones in buffers that end where they say, for the sanitizers to watch. */
#include "check.h"

enum { PAGE_BYTES = 4096 };

static dimg_vcdiff_sections sections_of(const uint8_t *data, size_t data_bytes, const uint8_t *instructions,
                                        size_t instructions_bytes, const uint8_t *addresses, size_t addresses_bytes)
{
    return (dimg_vcdiff_sections){data, instructions, addresses, data_bytes, instructions_bytes, addresses_bytes};
}

/* ADD 3, COPY 4 of old byte 2, COPY 6 of the last made byte (it repeats itself), RUN 5. */
static const uint8_t DATA[] = {'X', 'Y', 'Z', '-'};
static const uint8_t INSTRUCTIONS[] = {1 + 3, 19 + 1, 19 + 16 + 3, 0, 5};
static const uint8_t ADDRESSES[] = {2, 1};
static const char MADE[] = "XYZcdefffffff-----";
enum { MADE_BYTES = sizeof MADE - 1 };

static void test_known(void)
{
    const uint8_t source[] = "abcdefgh";
    const dimg_vcdiff_sections whole = sections_of(DATA, sizeof DATA, INSTRUCTIONS, sizeof INSTRUCTIONS, ADDRESSES, 2);
    uint8_t target[MADE_BYTES], page = 0;
    CHECK(dimg_survey_vcdiff(&whole, 8, MADE_BYTES, &page) == DIMG_OK);
    CHECK(page == 1);
    CHECK(dimg_apply_vcdiff(&whole, 8, source, 8, NULL, target, MADE_BYTES) == DIMG_OK);
    CHECK(memcmp(target, MADE, MADE_BYTES) == 0);

    CHECK(dimg_apply_vcdiff(&whole, 8, source, 5, NULL, target, MADE_BYTES) == DIMG_BUFFER_TOO_SMALL);
    CHECK(dimg_survey_vcdiff(&whole, 8, MADE_BYTES - 1, &page) == DIMG_DELTA_BAD_LENGTH);
    CHECK(dimg_survey_vcdiff(&whole, 8, MADE_BYTES + 1, &page) == DIMG_DELTA_BAD_LENGTH);
    CHECK(dimg_survey_vcdiff(&whole, 2, MADE_BYTES, &page) == DIMG_OK); /* from the old file on into what was made */
    CHECK(dimg_survey_vcdiff(&whole, UINT64_MAX, MADE_BYTES, &page) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_apply_vcdiff(&whole, 8, source, 8, NULL, NULL, MADE_BYTES) == DIMG_BAD_ARGUMENT);
    for (size_t cut = 1; cut <= sizeof DATA; cut++) {
        const dimg_vcdiff_sections less = sections_of(DATA, sizeof DATA - cut, INSTRUCTIONS, sizeof INSTRUCTIONS, ADDRESSES, 2);
        CHECK(dimg_survey_vcdiff(&less, 8, MADE_BYTES, &page) == DIMG_DELTA_ENDS);
    }
    const dimg_vcdiff_sections no_address = sections_of(DATA, sizeof DATA, INSTRUCTIONS, sizeof INSTRUCTIONS, ADDRESSES, 1);
    CHECK(dimg_survey_vcdiff(&no_address, 8, MADE_BYTES, &page) == DIMG_DELTA_ENDS);
    const uint8_t far_away[] = {0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00, 1};
    const dimg_vcdiff_sections far = sections_of(DATA, sizeof DATA, INSTRUCTIONS, sizeof INSTRUCTIONS, far_away, sizeof far_away);
    CHECK(dimg_survey_vcdiff(&far, 8, MADE_BYTES, &page) == DIMG_DELTA_BAD_COPY);
}

/* The last page of a segment lies before the first in `source`. */
static void test_places(void)
{
    enum { SEGMENT_BYTES = 2 * PAGE_BYTES + 10, COPIED = 10 };
    uint8_t *source = make_buffer(2 * PAGE_BYTES);
    memset(source, 'l', PAGE_BYTES);
    memset(source + PAGE_BYTES, 'f', PAGE_BYTES);
    const uint32_t places[3] = {1, 0, 0};
    const uint8_t instructions[] = {19 + 7, 19 + 7}, addresses[] = {5, 0xc0, 0x00}; /* 10 bytes each; 5 and 2 * 4096 */
    const dimg_vcdiff_sections both = sections_of(NULL, 0, instructions, 2, addresses, 3);
    uint8_t pages[3] = {0}, target[2 * COPIED];
    CHECK(dimg_survey_vcdiff(&both, SEGMENT_BYTES, sizeof target, pages) == DIMG_OK);
    CHECK(pages[0] == 1 && pages[1] == 0 && pages[2] == 1);
    CHECK(dimg_apply_vcdiff(&both, SEGMENT_BYTES, source, 2 * PAGE_BYTES, places, target, sizeof target) == DIMG_OK);
    CHECK(target[0] == 'f' && target[COPIED - 1] == 'f' && target[COPIED] == 'l' && target[2 * COPIED - 1] == 'l');
    free(source);
}

/* What passes a survey can be made, and needs no page that the survey did not name. */
static void test_random(void)
{
    uint64_t seed = 11;
    size_t good = 0;
    for (int round = 0; round < 300000; round++) {
        uint8_t chance[8];
        fill_random(chance, sizeof chance, &seed);
        const size_t target_bytes = chance[3] % 24;
        const size_t bytes[3] = {chance[0] % 2 ? target_bytes : chance[0] % 8, 1 + chance[1] % 3, chance[2] % 3};
        const size_t segment_bytes = chance[4] % 2 ? 3 * PAGE_BYTES - 9 : chance[5] % 20;
        uint8_t *part[3];
        for (int i = 0; i < 3; i++) {
            part[i] = make_buffer(bytes[i]);
            fill_random(part[i], bytes[i], &seed);
        }
        for (size_t i = 0; i < bytes[1] && chance[6] % 2; i++)
            part[1][i] %= 40; /* the plain ones: more windows are right */
        const size_t page_count = (segment_bytes + PAGE_BYTES - 1) / PAGE_BYTES;
        uint8_t *pages = make_buffer(page_count), *source = make_buffer(segment_bytes), *target = make_buffer(target_bytes + 1);
        memset(pages, 0, page_count);
        memset(source, 7, segment_bytes);
        const dimg_vcdiff_sections window = sections_of(part[0], bytes[0], part[1], bytes[1], part[2], bytes[2]);
        const int surveyed = dimg_survey_vcdiff(&window, segment_bytes, target_bytes, pages);
        CHECK(dimg_apply_vcdiff(&window, segment_bytes, source, segment_bytes, NULL, target, target_bytes) == surveyed);
        if (surveyed == DIMG_OK) {
            size_t from = segment_bytes;
            for (size_t i = 0; i < page_count; i++)
                from = pages[i] && i * PAGE_BYTES < from ? i * PAGE_BYTES : from;
            memset(source, 9, from);
            uint8_t *again = make_buffer(target_bytes + 1);
            CHECK(dimg_apply_vcdiff(&window, segment_bytes, source, segment_bytes, NULL, again, target_bytes) == DIMG_OK);
            CHECK(memcmp(target, again, target_bytes) == 0);
            free(again);
            good++;
        }
        for (int i = 0; i < 3; i++)
            free(part[i]);
        free(pages);
        free(source);
        free(target);
    }
    CHECK(good > 100);
}

int main(void)
{
    test_known();
    test_places();
    test_random();
    printf("vcdiff\n");
    return 0;
}
