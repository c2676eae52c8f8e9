/*
 * progress.h
 *		How far long commands are (the view es_progress), and counters of what
 *		snapshots did.
 */
#ifndef EVENTSRC_PROGRESS_H
#define EVENTSRC_PROGRESS_H

#include "postgres.h"

extern void es_progress_request_shmem(void);	/* shmem_request_hook */
extern void es_progress_init_shmem(void);	/* shmem_startup_hook */
extern void es_progress_init_backend(void); /* registers the transaction
											 * callbacks */

/* total: how much there is to do, -1 if nobody knows */
extern int64 es_progress_begin(const char *command, const char *store, int64 total);
extern void es_progress_update(int64 token, int64 done);
extern void es_progress_end(int64 token);

#endif							/* EVENTSRC_PROGRESS_H */
