/*
 * template.h
 *		Templates: "{store}.{aggregate_type}" and the like.
 */
#ifndef EVENTSRC_TEMPLATE_H
#define EVENTSRC_TEMPLATE_H

#include "eventsrc.h"

#define ES_FIELD_LITERAL	0	/* not a field */
#define ES_FIELD_STORE		(-1)

typedef struct EsTemplatePart
{
	int			field;			/* one of the above, or a column of es_event */
	const char *text;			/* of a literal */
	int			length;
} EsTemplatePart;

typedef struct EsTemplate
{
	int			nparts;
	EsTemplatePart parts[FLEXIBLE_ARRAY_MEMBER];
} EsTemplate;

/* what is the matter with a template, or NULL; fields for messages */
extern char *es_template_problem(const char *text);
extern const char *es_template_fields(void);

/* takes a template that has no problem apart */
extern EsTemplate *es_template_parse(const char *text);

#endif							/* EVENTSRC_TEMPLATE_H */
