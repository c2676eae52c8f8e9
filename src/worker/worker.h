/*
 * worker.h
 *		Background workers: one launcher a cluster, one worker a database that
 *		has the extension, and supervised workers (relays, later projections)
 *		that the database's worker starts.
 *
 * Every eventsrc worker holds a slot in shared memory while it lives, so that
 * DROP DATABASE and DROP EXTENSION can make all of a database's workers leave.
 */
#ifndef EVENTSRC_WORKER_H
#define EVENTSRC_WORKER_H

#include "eventsrc.h"

#include "store/position.h"

/* called from _PG_init and the shared memory hooks (eventsrc.c) */
extern void es_worker_request_shmem(void);
extern void es_worker_init_shmem(void);
extern void es_worker_register_launcher(void);
extern void es_worker_install_hooks(void);	/* ProcessUtility: DROP DATABASE,
											 * ... */

/* setting eventsrc.launcher_naptime, in seconds */
extern int	es_setting_launcher_naptime;

/*
 * es_worker_wake wakes the worker of a database, or has the launcher start
 * one; safe in a transaction callback.
 */
extern void es_worker_wake(Oid dboid);

/* es_worker_wake_at_commit does so when the current transaction commits. */
extern void es_worker_wake_at_commit(void);

/*
 * A task is run by the database's worker at start, at every wake-up and when
 * the time that it last returned (in ms; -1: only when woken) has passed.  It
 * is called outside a transaction and starts its own.  An error in it restarts
 * the worker after a pause.  Registered in _PG_init.
 */
typedef long (*EsWorkerTask) (void);
extern void es_worker_register_task(EsWorkerTask task);

/*
 * Supervised workers, for tasks.  es_worker_ensure starts the worker
 * (kind, id) of this database unless it lives or its back-off after a failure
 * (1 s, doubling to 60 s, forgotten after a minute of good running) lasts;
 * main_function is a bgworker entry point of this library, called as
 * main_function(Int64GetDatum(id)) with the worker's slot attached, connected
 * to the database as bootstrap superuser, signals unblocked.  Returns the
 * milliseconds until it wants to be called again, -1 if the worker lives.
 * *problem (may be NULL) tells why the worker could not be started (for
 * example no free max_worker_processes), else NULL.
 */
extern long es_worker_ensure(const char *kind, int64 id, const char *main_function,
							 const char **problem);

/*
 * es_worker_stop tells the worker to leave and does not wait, and forgets its
 * back-off.  Called again 5 s later or more it terminates a deaf worker.
 */
extern void es_worker_stop(const char *kind, int64 id);

/*
 * For the main functions of supervised workers: es_worker_begin connects and
 * attaches (first call of a bgworker entry point); es_worker_should_leave is
 * true when the worker is to exit(0) because its database or the extension is
 * going away or it was stopped or terminated (SIGTERM; a worker that does not
 * ask dies of it at the next CHECK_FOR_INTERRUPTS()).
 */
extern int64 es_worker_begin(Datum main_arg, const char *kind);
extern bool es_worker_should_leave(void);

/*
 * es_worker_wait sleeps until the worker is woken (es_worker_wake for the
 * database's worker; stop and signals for all), timeout_ms (-1: none) is over,
 * or, if db is not NULL, its counter of moves is no longer seen_moves.  Unlike
 * a sleep on the condition variable it returns at once when the worker is to
 * leave.  True if the configuration was reloaded.  Call it outside a
 * transaction, and es_worker_should_leave() next.
 */
extern bool es_worker_wait(EsDatabase *db, uint64 seen_moves, long timeout_ms,
						   uint32 wait_event);

/*
 * es_worker_end_sleep takes the process off the list of db->moved after a wait
 * on its latch.  ConditionVariableCancelSleep() alone passes a broadcast on to
 * another that waits, which does the same, so that they wake each other for
 * seconds.
 */
extern void es_worker_end_sleep(EsDatabase *db, uint64 seen_moves, uint32 wait_event);

/*
 * es_worker_enter starts a transaction with an active snapshot, in which the
 * extension is there and cannot be dropped; false, without a transaction, if it
 * was dropped (or dropped and made anew): the worker is to exit(0).
 * es_worker_finish pops the snapshot and commits.  activity is what
 * pg_stat_activity shows meanwhile.  For tasks and supervised workers, which
 * need not use them.
 */
extern bool es_worker_enter(const char *activity);
extern void es_worker_finish(void);

#endif							/* EVENTSRC_WORKER_H */
