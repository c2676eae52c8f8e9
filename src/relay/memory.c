/*
 * memory.c
 *		glibc's malloc(), from which the clients of brokers take their memory.
 *
 * librdkafka takes about ten small pieces for each event, one for each header
 * among them, and gives them back in much the same order, up to a window of
 * events later.  By default glibc keeps small pieces that are freed apart, and
 * joins them with what is free beside them only now and then: what is taken next
 * is then found again here and there all over the heap, in memory that is in no
 * cache, instead of piece after piece.  So they are joined at once.
 *
 * What a burst of events needs is kept for what follows, not given back to the
 * system and taken again with each batch; it is given back when the relay is
 * idle.
 */
#include "relay/run.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

/* a full window with all that librdkafka needs for it, and one batch of it */
#define KEPT_BYTES		(64 * 1024 * 1024)
#define BATCH_BYTES		(4 * 1024 * 1024)

/*
 * es_memory_begin fits malloc() to what a relay does, in its own process only.
 */
void
es_memory_begin(void)
{
#ifdef __GLIBC__
	(void) mallopt(M_MXFAST, 0);
	(void) mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
	(void) mallopt(M_MMAP_THRESHOLD, BATCH_BYTES);
#endif
}

/*
 * es_memory_end_burst gives back to the system what was needed to send many
 * events, if the relay has sent some since it did so last.
 */
void
es_memory_end_burst(EsRun *run)
{
	if (run->trimmed_total == run->window->total)
		return;
	run->trimmed_total = run->window->total;
#ifdef __GLIBC__
	(void) malloc_trim(0);
#endif
}
