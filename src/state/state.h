/*
 * state.h
 *		State of an aggregate: its reducer, the fold over its events, and the
 *		snapshots that shorten the fold.
 *
 *		merge.c		 the built-in reducers, which keep their state open (merge.h)
 *		merge_write.c writing that state as jsonb
 *		shape.c		 the keys of objects that they merged
 *		patch.c		 es_merge_patch(), by which the second of them is named
 *		reducer.c	 reducers: which functions can serve, and their identity
 *		program.h	 reducers that are run here, not called: program.c, program_expr.c,
 *					 program_kept.c, plpgsql.c, run.c, run_value.c, run_object.c
 *		typed.c		 states of composite types
 *		aggregate.c	 aggregate types: es_create_aggregate(), and reading the registry
 *		fold.c		 the fold of events by any kind of reducer
 *		lookup.c	 reads of the side tables by primary key
 *		snapshot.c	 snapshots: finding one, and the trigger that takes them
 *		run_guarded.c running what may fail in a subtransaction
 *		take.c		 taking one: computing and writing it with the owner's rights; trying one
 *		state.c		 es_state(), es_explain_state()
 *		diff.c		 what changed between two states (RFC 6902)
 *		history.c	 a stream's states step by step: es_history(), es_diff(), es_replay()
 *		states.c	 es_states(): the states of a whole aggregate type
 *		plan.c		 es_states() of one aggregate where no other is wanted
 *		foldagg.c	 es_fold(), an SQL aggregate
 */
#ifndef EVENTSRC_STATE_H
#define EVENTSRC_STATE_H

#include "read/scan.h"

#include "access/genam.h"
#include "access/skey.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/jsonb.h"

/* how often a snapshot is taken of types that say nothing about it */
#define ES_SNAPSHOT_EVERY	100
/* how many are kept of an aggregate of theirs */
#define ES_KEEP_SNAPSHOTS	10

/* What is registered for an aggregate type, or the defaults. */
typedef struct EsAggregate
{
	Oid			reducer;		/* InvalidOid: the built-in merge */
	Jsonb	   *initial;
	int			snapshot_every; /* 0: no snapshots */
	int			keep_snapshots; /* of an aggregate, 0: all */
	const char *identity;		/* of the reducer, the initial state and the
								 * store's upcasters */
} EsAggregate;

/* aggregate.c */
extern void es_aggregate_load(EsStore *store, text *aggregate_type,
							  Snapshot snapshot, EsAggregate *aggregate);
extern void es_aggregate_scratch(EsStore *store, text *aggregate_type,
								 Snapshot snapshot, Oid reducer, Jsonb *initial,
								 EsAggregate *aggregate);
extern const char *es_aggregate_identity(EsStore *store, const EsAggregate *aggregate);
extern void es_store_check_owner(EsStore *store);

/* reducer.c */
extern void es_reducer_check(Oid reducer);
extern char *es_reducer_name(Oid reducer);
extern Oid	es_reducer_find(text *name);
extern void es_reducer_check_acl(Oid reducer);
extern const char *es_reducer_identity(Oid reducer, Jsonb *initial);

/* merge.c */
typedef struct EsMerge EsMerge;

extern EsMerge *es_merge_begin(Jsonb *start);
extern void es_merge_add(EsMerge *merge, Datum data);
extern void es_merge_set(EsMerge *merge, int number, const char *key, int keylen,
						 const JsonbValue *value);
extern void es_merge_patch_add(EsMerge *merge, Datum data);
extern Jsonb *es_merge_state(EsMerge *merge);
extern bool es_merge_find(EsMerge *merge, const char *key, int keylen, JsonbValue *value);

/* patch.c */
extern Datum es_merge_patch(PG_FUNCTION_ARGS);

typedef struct EsProgram EsProgram;

/*
 * A reducer that is set up to be called.  Who folds often keeps it, zeroed but
 * for the context at first, to save the reducer's own start-up.
 */
typedef struct EsReducer
{
	MemoryContext context;		/* where what belongs to it lives */
	Oid			function;		/* InvalidOid: not set up */
	FmgrInfo	call;
	bool		patch;			/* it is es_merge_patch() */
	Oid			state_type;		/* JSONBOID, or a composite type */
	FmgrInfo	from_jsonb;		/* of a typed state */
	FmgrInfo	to_jsonb;
	EsProgram  *program;		/* NULL: none, or not yet */
	int			builds;			/* how often it was made */
	bool		opaque;			/* there can be no (better) one */
} EsReducer;

extern void es_reducer_prepare(EsReducer *reducer, Oid function);

/* program.c */
extern bool es_setting_inline_reducers;

extern bool es_program_usable(EsReducer *reducer);
extern void es_program_learn(EsReducer *reducer);

/* run.c */
extern bool es_program_run(EsProgram *program, TupleTableSlot *slot, EsMerge *merge, Datum state);
extern int	es_program_parts(EsProgram *program);
extern void es_program_add(EsProgram *program, EsMerge *merge);
extern bool es_program_opens(EsProgram *program);
extern Datum es_program_write(EsProgram *program);
extern const char *es_program_where(EsProgram *program);

/* typed.c */
extern void es_typed_prepare(EsReducer *reducer);
extern Datum es_typed_from_jsonb(EsReducer *reducer, Jsonb *state, bool *isnull);
extern Jsonb *es_typed_to_jsonb(EsReducer *reducer, Datum state, bool isnull);
extern uint64 es_typed_generation(Oid reducer);
extern char *es_typed_description(Oid reducer);

/* fold.c */
typedef struct EsFold EsFold;

extern EsFold *es_fold_begin(EsAggregate *aggregate, EsReducer *reducer,
							 text *aggregate_type, text *aggregate_id,
							 Jsonb *start);
extern void es_fold_restart(EsFold *fold, text *aggregate_id, Jsonb *start);
extern void es_fold_event(EsFold *fold, TupleTableSlot *slot);
extern Jsonb *es_fold_state(EsFold *fold);
extern Jsonb *es_fold_end(EsFold *fold);

/* diff.c */
extern Jsonb *es_json_diff(Jsonb *from, Jsonb *to);

/* snapshot.c */
extern int64 es_snapshot_find(EsStore *store, text *aggregate_type,
							  text *aggregate_id, int64 upto_version,
							  TimestampTz upto_time, const char *identity,
							  Snapshot snapshot, Jsonb **state);

/* run_guarded.c */
extern ErrorData *es_run_guarded(void (*run) (void *arg), void *arg);
extern bool es_error_stops(const ErrorData *error);

/* A question about an aggregate's state, and its answer. */
typedef struct EsStateQuery
{
	EsStore    *store;
	text	   *aggregate_type;
	text	   *aggregate_id;
	bool		to_version;		/* false: to the last */
	int64		version;		/* PG_INT64_MAX if not to_version */
	TimestampTz as_of;			/* DT_NOEND: now */
	bool		occurred;		/* as_of is business time */
	bool		snapshots;		/* may be used */
	bool		uncounted;		/* not in the hit rate */
	int64		from_version;	/* if not 0: the fold begins after this, ... */
	Jsonb	   *from_state;		/* ... with this state */
	Snapshot	snapshot;
	EsReducer  *reducer;		/* kept by the caller from call to call */
} EsStateQuery;

typedef struct EsStateAnswer
{
	Jsonb	   *state;			/* NULL: there is none */
	int64		version;		/* the highest that was folded, 0: none */
	TimestampTz recorded_at;	/* of that event */
	int64		snapshot_version;	/* 0: no snapshot was used */
	int64		replayed;		/* events folded */
} EsStateAnswer;

/* state.c */
extern text *es_identifier_arg(FunctionCallInfo fcinfo, int argno, const char *name);
extern EsReducer *es_kept_reducer(FunctionCallInfo fcinfo);
extern bool es_snapshots_usable(EsStore *store);
extern int64 es_nearest_version(EsStateQuery *query, int64 from_version, bool backward);
extern void es_state_compute(EsStateQuery *query, EsAggregate *aggregate,
							 EsStateAnswer *answer);

/* plan.c */
extern void es_state_install_hooks(void);

/* states.c */
extern bool es_is_states(Oid function);

/* take.c */
extern void es_snapshot_take(EsStateQuery *query, int every);

/* A read of a store's side table by its primary key (lookup.c). */
typedef struct EsLookup
{
	Relation	table;
	Relation	index;
	SysScanDesc scan;
	int			nkeys;
	ScanKeyData keys[3];
} EsLookup;

extern void es_lookup_open(EsLookup *lookup, Oid table);
extern void es_lookup_text(EsLookup *lookup, text *value);
extern void es_lookup_upto(EsLookup *lookup, int64 value);
extern HeapTuple es_lookup_last(EsLookup *lookup, Snapshot snapshot);
extern Datum es_lookup_value(EsLookup *lookup, HeapTuple tuple, int attno);
extern void es_lookup_close(EsLookup *lookup);

#endif							/* EVENTSRC_STATE_H */
