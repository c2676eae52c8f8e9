/*
 * program.h
 *		Reducers as programs: what program.c and plpgsql.c make of a reducer's
 *		body, and run.c runs.
 *
 *		program.c		 when there is a program; that of an SQL function
 *		program_expr.c	 its expressions
 *		plpgsql.c		 the statements of PL/pgSQL functions
 *		program_kept.c	 what is kept of programs from query to query
 *		run.c			 runs a program for an event
 *		run_value.c		 what its expressions look at
 *		run_object.c	 makes the objects that a program adds to the state
 */
#ifndef EVENTSRC_PROGRAM_H
#define EVENTSRC_PROGRAM_H

#include "state/state.h"

#include "catalog/namespace.h"
#include "executor/executor.h"
#include "nodes/params.h"

/*
 * What the Params of a program's expressions stand for: the state, the event,
 * its columns, and from ES_PARAM_OTHER on what the program's params say.
 */
#define ES_PARAM_STATE		1
#define ES_PARAM_EVENT		2
#define ES_PARAM_COLUMN		3	/* the first */
#define ES_PARAM_OTHER		(ES_PARAM_COLUMN + ES_NATTS)

/* how an expression looks at a key */
typedef enum EsProgramLook
{
	ES_LOOK_JSONB,				/* -> */
	ES_LOOK_TEXT,				/* ->> */
	ES_LOOK_NUMERIC				/* ->>, and the text as a number */
} EsProgramLook;

/* a key of the state or of a column that an expression looks at, or a variable */
typedef struct EsProgramParam
{
	Oid			type;
	char	   *key;			/* NULL: a variable */
	int			keylen;
	int			of;				/* ES_PARAM_STATE, or a column's number */
	EsProgramLook look;
} EsProgramParam;

/* what is evaluated; each run of the program makes its own ExprState of it */
typedef struct EsProgramEval
{
	Expr	   *expr;
	int			number;			/* of the ExprState */
} EsProgramEval;

/* a key and value that are added */
typedef struct EsProgramField
{
	EsProgramEval eval;
	int			looks;			/* if not 0, the Param that the expression is */
	Oid			type;
	char	   *key;
	int			keylen;
} EsProgramField;

/*
 * What is added to the state: state || jsonb_build_object(fields), state || eval
 * if there are none, or jsonb_set(state, {key}, value) of one field.
 */
typedef struct EsProgramPart
{
	EsProgramEval eval;
	List	   *fields;			/* of EsProgramField */
	bool		sets;			/* it is jsonb_set() */
} EsProgramPart;

/* an expression: the state with parts added to it, or any */
typedef struct EsProgramExpr
{
	EsProgramEval eval;			/* expr NULL: the state and parts */
	bool		is_varlena;
	bool		snapshot;		/* it needs one of its own */
	List	   *parts;			/* of EsProgramPart */
} EsProgramExpr;

typedef enum EsStepKind
{
	ES_STEP_ASSIGN,				/* expr to the state or a variable */
	ES_STEP_BRANCH,				/* to the first arm that holds */
	ES_STEP_RETURN,				/* expr */
	ES_STEP_STOP				/* from here on the function itself knows */
} EsStepKind;

typedef struct EsProgramStep
{
	EsStepKind	kind;
	const char *where;			/* for an error's context */
	EsProgramExpr *expr;		/* NULL: NULL (ES_STEP_ASSIGN), none */
	int			target;			/* of ES_STEP_ASSIGN; of a branch's expr, 0:
								 * CaseTestExpr */
	List	   *arms;			/* of EsProgramArm */
	List	   *otherwise;		/* steps */
} EsProgramStep;

typedef struct EsProgramArm
{
	EsProgramExpr *condition;
	List	   *steps;
} EsProgramArm;

/*
 * What is made of a reducer's body.  It does not change any more, and holds no
 * pointers to what belongs to others.
 */
typedef struct EsProgramCode
{
	MemoryContext context;
	int			users;			/* the programs that run it, and who keeps it */
	Oid			function;
	PGFunction	address;		/* how it is called */
	uint64		generation;		/* of the catalogs that it was made from */
	char	   *search_path;
	EsSearchPath *path;			/* what that stood for */
	Oid			user;			/* may call what it calls: */
	List	   *functions;
	List	   *steps;			/* NIL: there can be no program */
	bool		unfinished;		/* calls can tell more about the function */
	int			nevals;
	int			nothers;
	int			room;
	EsProgramParam *others;
} EsProgramCode;

/* a key and its value */
typedef struct EsProgramItem
{
	const char *key;
	int			keylen;
	int			number;			/* the same for the same expression */
	JsonbValue	value;
} EsProgramItem;

/* What one run adds to the state: an object, of which only items are there at first. */
typedef struct EsProgramAdded
{
	Jsonb	   *object;			/* NULL: not written yet */
	int			nitems;
	EsProgramItem *items;
} EsProgramAdded;

/* A program that one query runs. */
struct EsProgram
{
	MemoryContext context;
	MemoryContextCallback release;
	EsProgramCode *code;
	ParamListInfo params;
	ExprContext *econtext;
	ExprState **evals;			/* NULL: not needed yet */
	NullableDatum *variables;	/* by number in the code's others */

	/* how it goes */
	int64		runs;
	int64		stops;
	int64		adds;			/* parts added to an open state, ... */
	int64		writes;			/* ... and open states written or opened anew */

	/* the run for one event */
	const char *where;			/* NULL: no run */
	TupleTableSlot *slot;
	EsMerge    *merge;
	Datum		state;			/* if merge is NULL */
	NullableDatum event;		/* isnull: not made yet */
	NullableDatum columns[ES_NATTS];	/* read already unless isnull */
	bool		assigned;		/* the state is value, not what it was */
	NullableDatum value;
	int			nparts;			/* added to it */
	int			parts_room;
	EsProgramAdded *parts;
	bool		written;		/* flat is the state with its parts */
	NullableDatum flat;
};

/* What is known while a program is made. */
typedef struct EsProgramBuild
{
	EsProgramCode *code;
	bool		readonly;		/* it is not volatile */
	bool		failed;			/* the expression at hand cannot be used */
	int			(*find_param) (struct EsProgramBuild *build, Param *param);
	void	   *language;		/* of that language's file */
} EsProgramBuild;

/* program.c */
extern uint64 es_program_generation(void);
extern int	es_program_add_param(EsProgramCode *code, Oid type);
extern int	es_program_column(const char *name);
extern EsProgramStep *es_program_step(EsStepKind kind, const char *where);

/* program_expr.c */
extern EsProgramExpr *es_program_expr(EsProgramBuild *build, Expr *expr, bool open);
extern List *es_program_return(EsProgramBuild *build, Expr *expr, const char *where);
extern bool es_program_may_execute(Oid function);

/* plpgsql.c */
extern bool es_program_is_plpgsql(Oid language, FmgrInfo *call);
extern bool es_program_plpgsql_watched(void);
extern List *es_program_plpgsql(EsProgramBuild *build, FmgrInfo *call);

/* program_kept.c */
extern EsProgramCode *es_program_kept(EsReducer *reducer);
extern void es_program_keep(EsProgramCode *code);
extern void es_program_release(EsProgramCode *code);

/* run_value.c */
extern ParamExternData *es_program_fetch(ParamListInfo params, int id, bool speculative,
										 ParamExternData *result);
extern bool es_program_find(EsProgram *program, EsProgramParam *param, JsonbValue *value);

/* run.c */
extern Datum es_program_state(EsProgram *program, bool *isnull);
extern ExprState *es_program_prepare(EsProgram *program, const EsProgramEval *eval);

/*
 * es_program_ready returns what evaluates an expression in this run of the
 * program.
 */
static inline ExprState *
es_program_ready(EsProgram *program, const EsProgramEval *eval)
{
	ExprState  *state = program->evals[eval->number];

	return likely(state != NULL) ? state : es_program_prepare(program, eval);
}

/* run_object.c */
extern bool es_program_builds(Oid type);
extern bool es_program_make_part(EsProgram *program, EsProgramPart *part, EsProgramAdded *added);
extern Jsonb *es_program_object(EsProgramAdded *added);

#endif							/* EVENTSRC_PROGRAM_H */
